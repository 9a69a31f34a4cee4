"""How a sweep was done, from what its caller says and what its runs say of themselves."""

from collections.abc import Iterable, Sequence
from typing import Any

from nmt_ls.evaluation.significance import ALPHA
from nmt_ls.study.comparison import Run
from nmt_ls.study.decision import SEEDS_NEEDED
from nmt_ls.study.strength import losses_of, strength_in, symbol_of


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
    rows += [("claims", _claims(comparison))]
    environments = [run["environment"] for run in runs if "environment" in run]
    for name in dict.fromkeys(name for found in environments for name in found):
        rows.append((name, _distinct(found[name] for found in environments if name in found)))
    return rows


def _claims(comparison: dict) -> str:
    losses = losses_of(comparison).values()
    deciding = (comparison.get("pooled") or comparison["tests"]).values()
    bases = (strength_in(block).value(block["baseline"]) for block in deciding)
    base = " or ".join(dict.fromkeys(bases))
    return (
        f"differences in BLEU from {base}, of all test sets together: paired t-test over seeds "
        f"({SEEDS_NEEDED} at least), Holm’s correction over {symbol_of(losses)}, "
        f"α = {ALPHA:g}"
    )


_ASKED_FOR = {
    "adjusted": ("likelihood and calibration after temperature and un-mixing", "fit=true"),
    "beam_curve": ("beam sizes", "beams=[1,5,50]"),
    "strategies": ("sampling and minimum Bayes risk", "strategies=[sample,mbr]"),
    "empty_better": ("empty translations", "empty=true"),
    "by_word_frequency": ("words by their frequency in training", "word_frequency=true"),
    "projection": ("hidden states", "projection=true"),
}
"""What results hold only if asked: in words, and the setting of `evaluation` that asks for it."""


def not_measured(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What no run has measured, and the setting that would have it measured."""
    results = [one for run in runs for one in run["results"].values()]
    return [
        (words, f"evaluation.{setting}")
        for name, (words, setting) in _ASKED_FOR.items()
        if not any(one.get(name) for one in results)
    ]


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
