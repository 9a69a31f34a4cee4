"""A sweep's plan: a grid of cells, each a run with its directory, its group and its shard.

plan.json is written before the first step and only ever grows: a cell keeps its place, its
directory and its group, so that calls which add strengths, seeds or settings, and calls that
share the work, agree on who does what.
"""

import json
import logging
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from nmt_ls.config import Config
from nmt_ls.config_files import resolved_dict, with_settings
from nmt_ls.errors import UserError
from nmt_ls.study.grid import Grid, combinations, run_name
from nmt_ls.study.plan_file import Entry, entries_of, text_of, write_plan

log = logging.getLogger("nmt_ls")


class Request(NamedTuple):
    """Which cells a call of `nmt-ls sweep` asks for; None: as the configuration says."""

    smoothing: Sequence[float] | None = None
    """Strengths: ε, or β of a loss without ε."""
    seeds: int | None = None
    """Runs of each."""
    grid: Grid | None = None
    """Values of other settings, by dotted key."""
    shard: tuple[int, int] | None = None
    """(k, n): this call does the k-th share of n, from 1."""
    only: str = ""
    """This run alone."""


class Cell(NamedTuple):
    """One run of a sweep: its entry in plan.json and what follows from it."""

    entry: Entry
    config: Config
    run_dir: Path


def parse_shard(text: str) -> tuple[int, int]:
    """`3/8` → (3, 8).

    Raises:
      UserError: not of that form, or no such share.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    shard = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= shard[0] <= shard[1]:
        raise UserError(f"--shard {text}: write 1/8 for the first of eight shares")
    return shard


def strength_field(config: Config) -> str:
    """The setting that a sweep's strengths are values of."""
    return "loss.label_smoothing" if config.loss.kind == "label_smoothing" else "loss.beta"


def cell_config(config: Config, entry: Entry) -> Config:
    """The configuration of one run: the sweep's, with the entry's settings, strength and seed.

    Raises:
      UserError: a setting that does not exist, or a value that does not fit.
    """
    config = with_settings(config, entry.get("settings", {}), expand=True)
    decided = {strength_field(config): entry["label_smoothing"], "seed": entry["seed"]}
    return with_settings(config, decided)


def group_cells(
    entries: Sequence[Entry], configs: Sequence[Config], shards: int = 1
) -> list[Entry]:
    """The entries with a `group` number each: runs of a group can be trained as one program.

    They differ only in strength, seed, dropout rates, learning rate and weight decay, and in none
    of the rates and the decay between zero and not zero, which is another program. Entries that
    have a group keep it, and nothing joins an existing group.

    Args:
      entries: of plan.json, in its order.
      configs: of each.
      shards: how many calls share the work: new groups are no larger than an even share of the new
        cells, so that each call finds some.
    """
    following = 1 + max((entry["group"] for entry in entries if "group" in entry), default=-1)
    alike: dict[str, list[int]] = {}
    for number, (entry, config) in enumerate(zip(entries, configs, strict=True)):
        if "group" not in entry:
            alike.setdefault(_program(config), []).append(number)
    share = -(-sum(map(len, alike.values())) // shards)
    grouped = [dict(entry) for entry in entries]
    for members in alike.values():
        largest = min(configs[members[0]].sweep.together or len(members), share)
        pieces = -(-len(members) // largest)
        size = -(-len(members) // pieces)
        for first in range(0, len(members), size):
            for number in members[first : first + size]:
                grouped[number]["group"] = following
            following += 1
    return grouped


def _program(config: Config) -> str:
    """What is the same for runs that can be trained as one program."""
    tree = resolved_dict(config)
    for key in ("name", "seed", "sweep"):
        del tree[key]
    section, _, field = strength_field(config).partition(".")
    tree[section][field] = None
    tree["training"]["learning_rate"] = None
    for section, field in (
        ("model", "dropout"),
        ("model", "attention_dropout"),
        ("model", "activation_dropout"),
        ("training", "weight_decay"),
    ):
        tree[section][field] = bool(tree[section][field])
    return json.dumps(tree, sort_keys=True)


def make_plan(
    config: Config,
    sweep_dir: Path,
    request: Request = Request(),  # noqa: B008 - immutable
    check: Callable[[Sequence[Cell]], None] | None = None,
) -> list[Cell]:
    """The cells of a sweep, old and new, written to plan.json.

    Several calls may do this at the same time: the file is whole or absent, written only when it
    changes, and of two first ones the later joins the earlier.

    Args:
      config: of all runs.
      sweep_dir: where they live.
      request: which cells.
      check: called with the cells before anything is written; may refuse.

    Raises:
      UserError: the directory is something else's; a setting of the grid that does not exist, that
        a grid cannot vary, or whose values do not fit; what `check` raises.
    """
    if sweep_dir.exists() and not sweep_dir.is_dir():
        raise UserError(f"{sweep_dir} is a file; choose another --run-dir")
    path = sweep_dir / "plan.json"
    while True:
        before = text_of(path)
        there = entries_of(path, before)
        entries, configs, requested = _with_requested(config, there, request)
        if before is None:
            _refuse_other_content(sweep_dir, entries)
        shards = request.shard[1] if request.shard else 1
        entries = group_cells(entries, configs, shards)
        cells = [
            Cell(entry, one, sweep_dir / entry["run"])
            for entry, one in zip(entries, configs, strict=True)
        ]
        if check is not None:
            check(cells)
        title = config.name or sweep_dir.resolve().name
        text = json.dumps({"title": title, "runs": entries}, indent=1, ensure_ascii=False) + "\n"
        if text == before:
            break
        # `check` may have taken its time, in which another call has added to the plan.
        if text_of(path) == before and write_plan(path, text, new=before is None):
            break
    _tell_differences(path, there, entries, requested, request)
    return cells


def _tell_differences(
    path: Path,
    there: Sequence[Entry],
    entries: Sequence[Entry],
    requested: set[str],
    request: Request,
) -> None:
    """Calls for a sweep should ask for the same; if this one does not, it may be a slip."""
    added = [entry["run"] for entry in entries[len(there) :]]
    beyond = [entry["run"] for entry in there if entry["run"] not in requested]
    if there and added:
        log.info("%s: new besides the %d there were: %s", path, len(there), _few(added))
    if beyond and not request.only:
        log.info("%s: planned by earlier calls, and part of the sweep: %s", path, _few(beyond))


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _refuse_other_content(sweep_dir: Path, entries: Sequence[Entry]) -> None:
    """A directory without a plan may hold runs that were begun before, and nothing else."""
    if not sweep_dir.exists():
        return
    # Another call may just have written the plan; it will be read anew.
    ours = {"plan.json", *(entry["run"] for entry in entries)}
    for found in sweep_dir.iterdir():
        name = found.name
        if name not in ours and not name.startswith(("smoothing_", ".plan.json.")):
            raise UserError(f"{sweep_dir} is not empty and has no plan.json; choose another")


def _with_requested(
    config: Config, there: Sequence[Entry], request: Request
) -> tuple[list[Entry], list[Config], set[str]]:
    """The entries there are, then those that the request adds; their configurations; the names of
    all that it asks for."""
    grid = config.sweep.grid if request.grid is None else request.grid
    strengths = config.sweep.smoothing if request.smoothing is None else request.smoothing
    count = config.sweep.seeds if request.seeds is None else request.seeds
    entries = [dict(entry) for entry in there]
    configs = [cell_config(config, entry) for entry in entries]
    names = {entry["run"].casefold(): entry for entry in entries}
    requested: set[str] = set()
    varied = combinations(config, grid)
    for seed in range(config.seed, config.seed + count):
        for settings in varied:
            for strength in dict.fromkeys(map(float, strengths)):
                entry: Entry = {
                    "run": run_name(strength, seed, settings),
                    "label_smoothing": strength,
                    "seed": seed,
                    "settings": settings,
                }
                # Some file systems know no capital letters.
                other = names.setdefault(entry["run"].casefold(), entry)
                if _cell_of(other) != _cell_of(entry):
                    # Only here, so that runs that are there keep their names.
                    entry["run"] = run_name(strength, seed, settings, hashed=True)
                    other = names.setdefault(entry["run"].casefold(), entry)
                requested.add(entry["run"])
                if other is entry:
                    entries.append(entry)
                    configs.append(cell_config(config, entry))
    return entries, configs, requested


def _cell_of(entry: Entry) -> tuple[dict[str, Any], float, int]:
    return entry["settings"], entry["label_smoothing"], entry["seed"]


def chosen(cells: Sequence[Cell], request: Request) -> list[Cell]:
    """The cells that a call does, groups in their order: all, its shard's, or one.

    Raises:
      UserError: no run of that name.
    """
    if request.only:
        found = [cell for cell in cells if cell.entry["run"] == request.only]
        if not found:
            names = ", ".join(cell.entry["run"] for cell in cells)
            raise UserError(f"--only {request.only}: the plan has {names}")
        return found
    if request.shard:
        place, count = request.shard
        cells = [cell for cell in cells if cell.entry["group"] % count == place - 1]
    return sorted(cells, key=lambda cell: cell.entry["group"])
