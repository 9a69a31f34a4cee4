"""The grid of a sweep: settings besides ε and the seed, their values, and what runs are called."""

import hashlib
import itertools
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from nmt_ls.config import Config
from nmt_ls.config_files import parsed_value, resolved_dict, with_settings
from nmt_ls.config_words import shown
from nmt_ls.errors import UserError

Grid = Mapping[str, Sequence[Any]]
"""Values by dotted key."""

LONGEST_NAME = 150
"""Characters of a run's directory name; file systems end at 255 bytes."""

_DECIDES_NOTHING = ("name", "sweep", "format_version")
_OF_THE_SWEEP = {
    "seed": "--seeds (sweep.seeds) varies it",
    "loss.label_smoothing": "--smoothing (sweep.smoothing) varies it",
    "loss.beta": "--smoothing (sweep.smoothing) varies it where loss.kind has no ε",
}


def parse_grid(options: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """`["model.dropout=0,0.3", …]` → `{"model.dropout": (0, 0.3), …}`; values are YAML.

    A comma inside quotes separates nothing.

    Raises:
      UserError: not of that form, no value, an empty one, or a setting that stands twice.
    """
    grid: dict[str, tuple[Any, ...]] = {}
    for option in options:
        key, equals, text = option.partition("=")
        key = key.strip()
        if not equals or not all(key.split(".")):
            raise UserError(f"--grid {option}: write key=value,value as in model.dropout=0,0.3")
        if key in grid:
            raise UserError(f"--grid {option}: {key} stands twice; give all its values at once")
        if not text.strip():
            raise UserError(f"--grid {option}: no value; write them as in model.dropout=0,0.3")
        parts = _between_commas(text)
        if not all(part.strip() for part in parts):
            raise UserError(f"--grid {option}: an empty value; write '' for an empty text")
        values = tuple(parsed_value(part, f"--grid {option}") for part in parts)
        for value in values:
            if isinstance(value, list | dict):
                raise UserError(
                    f"--grid {option}: {shown(value)} is not a text, number, true, false or null"
                )
        grid[key] = values
    return grid


def _between_commas(text: str) -> list[str]:
    part = r"""(?:"(?:[^"\\]|\\.)*"|'(?:[^']|'')*'|[^,])*"""
    return [match[1] for match in re.finditer(rf"(?:^|,)({part})", text)]


def combinations(config: Config, grid: Grid) -> list[dict[str, Any]]:
    """Every combination of a grid's values, by dotted key, as a run's configuration has them.

    One, without settings, where there is no grid.

    Raises:
      UserError: a setting that does not exist, that a grid cannot vary or that has no value; a
        value that does not fit, or stands twice.
    """
    for key, values in grid.items():
        _refuse_unvaried(key, values)
    keys = sorted(grid)
    found: list[dict[str, Any]] = []
    for values in itertools.product(*(grid[key] for key in keys)):
        settings = _as_resolved(config, dict(zip(keys, values, strict=True)))
        if settings in found:
            raise UserError(f"the grid has {words_of(settings)} twice; name each value once")
        found.append(settings)
    return found


def _refuse_unvaried(key: str, values: Sequence[Any]) -> None:
    if key.partition(".")[0] in _DECIDES_NOTHING:
        raise UserError(f"a grid over {key}: it decides nothing about a run; leave it out")
    if key in _OF_THE_SWEEP:
        raise UserError(f"a grid over {key}: {_OF_THE_SWEEP[key]}; leave it out of the grid")
    if not values:
        raise UserError(f"sweep.grid.{key} is empty; name its values or leave it out")


def _as_resolved(config: Config, settings: dict[str, Any]) -> dict[str, Any]:
    """The settings as a run's configuration has them: 0 of a fraction is 0.0."""
    tree = resolved_dict(with_settings(config, settings, expand=True))
    resolved = {}
    for key in settings:
        value: Any = tree
        for part in key.split("."):
            value = value[part]
        resolved[key] = value
    return resolved


def run_name(
    label_smoothing: float,
    seed: int,
    settings: Mapping[str, Any] | None = None,
    *,
    hashed: bool = False,
) -> str:
    """The directory of one run within its sweep, safe in a file system.

    `smoothing_0.1_seed_1`, with settings `model.dropout=0.3__smoothing_0.1_seed_1`; one that would
    be too long is cut, with a hash of what was there.

    Args:
      label_smoothing, seed, settings: of the run.
      hashed: have the hash of the settings in any case: other settings have the name without it,
        as 日本 and 中国 both are `--` where only ASCII is safe.
    """
    name = f"smoothing_{label_smoothing}_seed_{seed}"
    if not settings:
        return name
    text = "__".join(f"{key}={_plain(value)}" for key, value in sorted(settings.items()))
    safe = re.sub(r"[^A-Za-z0-9._=+-]", "-", text)
    room = LONGEST_NAME - len(name) - len("__")
    if hashed or len(safe) > room:
        digest = hashlib.sha256(text.encode()).hexdigest()[:10]
        safe = f"{safe[: room - len(digest) - 1]}-{digest}"
    return f"{safe}__{name}"


def words_of(settings: Mapping[str, Any]) -> str:
    """`data.noise=0.2, model.dropout=0.3`; empty without settings."""
    return ", ".join(f"{key}={_plain(value)}" for key, value in sorted(settings.items()))


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
