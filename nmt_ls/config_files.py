"""Configurations: read, overridden, checked, written, compared, described.

`nmt_ls.config` says what the settings are, `config_yaml` how YAML is read; this module turns
whatever is wrong with a file into one or two plain lines.
"""

import dataclasses
import functools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nmt_ls.config import FORMAT_VERSION, Config
from nmt_ls.config_checks import check_together
from nmt_ls.config_words import describe_settings, explain, shown
from nmt_ls.config_yaml import dumped, parsed_value, read_tree
from nmt_ls.errors import UserError

__all__ = [
    "describe_settings",
    "differences",
    "load_config",
    "load_resolved",
    "parsed_value",
    "resolved_dict",
    "save_config",
    "with_settings",
]

_PATHS = {
    "root",
    "path",
    "source",
    "target",
    "cache_dir",
    "model_file",
    "source_model_file",
    "init_from",
    "graduated_run",
    "teacher_run",
    "comet",
    "comet_command",
}
"""Settings in which `${NAME}` is expanded."""

_TEXTS = {"name", "source", "target", "split"}
"""Settings whose text may look like a number (column 1 of a TSV file)."""


# --- reading -------------------------------------------------------------------------------------


def load_config(path: str | os.PathLike[str], overrides: Sequence[str] = ()) -> Config:
    """The configuration of a YAML file, with overrides.

    Args:
        path: The file; what it leaves out has its default.
        overrides: `a.b=value` each, the value in YAML; later ones win.

    Returns:
        The checked configuration, environment variables expanded.

    Raises:
        UserError: what is wrong, in one or two lines that name the dotted key, the value and the
            way out.
    """
    raw = read_tree(path)
    for override in overrides:
        _override(raw, override)
    return _validated(raw)


def with_settings(
    config: Config,
    settings: Mapping[str, Any],
    overrides: Sequence[str] = (),
    *,
    expand: bool = False,
) -> Config:
    """A configuration with some settings changed, by dotted key; checked as a whole.

    Args:
        config: What to begin with.
        settings: Values by dotted key.
        overrides: As of `load_config`, after them.
        expand: Expand environment variables also outside `overrides`, as `load_config` does.

    Raises:
        UserError: as `load_config`.
    """
    raw = resolved_dict(config)
    for key, value in settings.items():
        _put(raw, key, value, key)
    for override in overrides:
        _override(raw, override)
    return _validated(raw, expand=expand)


def load_resolved(path: str | os.PathLike[str]) -> Config:
    """A configuration that `save_config` wrote (`RUN/config.yaml`).

    Raises:
        UserError: not such a file, or of another format version.
    """
    raw = read_tree(path)
    found = raw.get("format_version")
    if found != FORMAT_VERSION:
        raise UserError(
            f"{path}: format_version={found}, but this nmt_ls reads {FORMAT_VERSION}; "
            "use the version that wrote it (environment.json beside it)"
        )
    return _validated(raw, expand=False)


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise UserError(f"--set {override}: write key=value, as in training.max_steps=100")
    value = _prepared(parsed_value(text, f"--set {override}"), key, expand=True)
    _put(raw, key, value, f"--set {override}")


def _put(raw: dict[str, Any], key: str, value: Any, where: str) -> None:
    """Sets a dotted key in the raw tree; sections that are not there are made."""
    parts = key.split(".")
    branch = raw
    for depth, part in enumerate(parts[:-1], 1):
        if branch.get(part) is None:
            branch[part] = {}
        branch = branch[part]
        if not isinstance(branch, dict):
            raise UserError(f"{where}: {'.'.join(parts[:depth])} is {shown(branch)}, not a section")
    branch[parts[-1]] = value


# --- checking ------------------------------------------------------------------------------------


@functools.cache
def _adapter() -> TypeAdapter[Config]:
    return TypeAdapter(Config)


def _validated(raw: dict[str, Any], *, expand: bool = True) -> Config:
    try:
        prepared = _prepared(raw, "", expand)
    except RecursionError:
        raise UserError(
            "the configuration refers to itself (a YAML alias in its own anchor)"
        ) from None
    text = json.dumps(prepared, default=str)
    try:
        # JSON's strict mode: lists become tuples and sections dataclasses, but "5" is no number.
        config = _adapter().validate_json(text, strict=True)
    except ValidationError as error:
        _refuse([explain(found, prepared) for found in error.errors(include_url=False)])
    _refuse([(problem, problem) for problem in check_together(config)])
    return config


def _refuse(problems: list[tuple[str, str]]) -> None:
    """Raises the first two of (key, line), if any."""
    lines = list(dict(problems).values())
    if not lines:
        return
    more = f" (and {len(lines) - 2} more)" if len(lines) > 2 else ""
    raise UserError("\n".join(lines[:2]) + more)


def _prepared(value: Any, key: str, expand: bool) -> Any:
    """The raw tree with environment variables expanded and numbers that stand for text as text."""
    name = key.rpartition(".")[2]
    if isinstance(value, dict):
        return {
            str(part): _prepared(inner, f"{key}.{part}" if key else str(part), expand)
            for part, inner in value.items()
        }
    if isinstance(value, list):
        return [_prepared(inner, key, expand) for inner in value]
    if isinstance(value, str) and expand and name in _PATHS:
        return _expanded(value, key)
    if isinstance(value, int) and not isinstance(value, bool) and name in _TEXTS:
        return str(value)
    return value


def _expanded(text: str, key: str) -> str:
    def value(match: re.Match[str]) -> str:
        found = os.environ.get(match["name"])
        if match["default"] is not None:
            return found or match["default"]
        if found is None:
            raise UserError(
                f"{key}={text}: the environment variable {match['name']} is not set; set it, or "
                f"write ${{{match['name']}:-default}}"
            )
        return found

    return re.sub(r"\$\{(?P<name>[A-Za-z_]\w*)(?::-(?P<default>[^}]*))?\}", value, text)


# --- writing and comparing -----------------------------------------------------------------------


def resolved_dict(config: Config) -> dict[str, Any]:
    """Every setting with its value, in types that YAML has."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def save_config(config: Config, path: str | os.PathLike[str]) -> None:
    """Writes `resolved_dict(config)`; the file is there whole or not at all.

    Raises:
        OSError: the file cannot be written.
    """
    path = Path(path)
    text = dumped(resolved_dict(config))
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    beside.replace(path)


def differences(a: Config, b: Config) -> list[tuple[str, Any, Any]]:
    """(dotted key, value in a, value in b) of every setting in which the two differ."""
    return list(_differences(resolved_dict(a), resolved_dict(b), ""))


def _differences(a: Any, b: Any, key: str) -> Iterator[tuple[str, Any, Any]]:
    if isinstance(a, dict) and isinstance(b, dict):
        for name in [*a, *(name for name in b if name not in a)]:
            inner = f"{key}.{name}" if key else name
            yield from _differences(a.get(name), b.get(name), inner)
    elif a != b:
        yield key, a, b
