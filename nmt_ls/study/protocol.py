"""How a sweep was done, from what its caller says and what its runs say of themselves."""

from collections.abc import Iterable, Sequence
from typing import Any

from nmt_ls.study.comparison import Run


def protocol_rows(comparison: dict, runs: Sequence[Run], protocol: dict) -> list[tuple[str, str]]:
    """What the caller says, then what the runs say of themselves; all that differs is listed."""
    rows = list(_flatten("", protocol))
    for name in ("checkpoint", "decode"):
        found = _distinct(
            results[name] for run in runs for results in run["results"].values() if name in results
        )
        if found and name not in protocol:
            rows.append((name, found))
    for metric in ("bleu", "chrf", "ter"):
        found = _distinct(
            signature
            for result in comparison["tests"].values()
            for signature in result["signatures"][metric]
            if signature
        )
        if found:
            rows.append((f"{metric} signature", found))
    environments = [run["environment"] for run in runs if "environment" in run]
    for name in dict.fromkeys(name for found in environments for name in found):
        rows.append((name, _distinct(found[name] for found in environments if name in found)))
    return rows


def _flatten(prefix: str, values: dict) -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", _plain(value)


def _distinct(values: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(map(_plain, values)))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return str(value)
