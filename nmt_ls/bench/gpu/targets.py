"""What was found beside what was asked for, from the results of benchmarks, sweeps and runs."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any, NamedTuple

from tabulate import tabulate

from nmt_ls.bench.gpu.time_to_quality import METRIC
from nmt_ls.bench.population import ALONE
from nmt_ls.study.plan_file import Entry, read_plan


class Row(NamedTuple):
    """One line of a summary."""

    what: str
    found: str
    wanted: str = ""
    met: bool | None = None
    """None where nothing is asked for."""


def ratio_rows(result: Mapping[str, Any], *, at_most: bool) -> list[Row]:
    """The ratios of a benchmark that measures sides in turn.

    Args:
      result: its JSON.
      at_most: whether a ratio is of times, ours over theirs, or of rates.
    """
    rows = []
    for ratio in result.get("ratios", ()):
        value, wanted = ratio["ratio"], ratio.get("wanted")
        what = f"{ratio.get('what', 'ours')} / {ratio['beside']}"
        if wanted is None:
            rows.append(Row(what, f"{value:.2f}"))
            continue
        met = value <= wanted if at_most else value >= wanted
        rows.append(Row(what, f"{value:.2f}", f"{'≤' if at_most else '≥'} {wanted:g}", met))
    return rows


def side_rows(result: Mapping[str, Any], rate: str) -> list[Row]:
    """What each side of a benchmark does per second.

    Args:
      result: its JSON.
      rate: the name of the figure.
    """
    return [
        Row(f"{side['name']}, {rate.replace('_', ' ')}", f"{side[rate]:,.1f}")
        for side in result.get("sides", ())
        if rate in side
    ]


def population_row(result: Mapping[str, Any], wanted: float) -> Row:
    """Time of a step of all members over that of one alone, of `bench population`."""
    members = result["settings"]["members"]
    seconds = {way["name"]: way["seconds"] for way in result["ways"]}
    ratio = seconds[result["chosen"]] / (seconds[ALONE] / members)
    what = f"step of {members} runs, {result['chosen']} / of one"
    return Row(what, f"{ratio:.2f}", f"≤ {wanted:g}", ratio <= wanted)


def sweep_results(sweep_dir: Path) -> list[tuple[Entry, dict[str, Any]]]:
    """The entry and the results.json of each evaluated run of a sweep, in the order of its plan."""
    found = []
    for entry in read_plan(sweep_dir):
        path = sweep_dir / entry["run"] / "results.json"
        if path.exists():
            found.append((entry, json.loads(path.read_text(encoding="utf-8"))))
    return found


def reproduction_row(bleus: Sequence[float], published: float) -> Row:
    """Whether a published BLEU lies within what our seeds give: at most mean + 2 sd of theirs.

    Raises:
      ValueError: fewer than two seeds, which have no spread.
    """
    if len(bleus) < 2:
        raise ValueError(f"{len(bleus)} seeds: at least 2 for a spread")
    middle, spread = mean(bleus), stdev(bleus)
    found = f"{middle:.2f} ± {spread:.2f} ({min(bleus):.2f} … {max(bleus):.2f})"
    wanted = f"{published:.2f} ≤ mean + 2 sd"
    return Row(f"BLEU of {len(bleus)} seeds", found, wanted, published <= middle + 2 * spread)


def quality_row(result: Mapping[str, Any]) -> Row:
    """Seconds of training until the BLEU that was wanted, of `time_to_quality`."""
    best = max((point["bleu"] for point in result["curve"]), default=0.0)
    what = f"seconds of training until {result['wanted']:g} {METRIC}"
    if result["seconds"] is None:
        return Row(what, f"not reached; best {best:.2f}", "reached", False)
    return Row(what, f"{result['seconds']:,.0f} (step {result['step']:,})", "reached", True)


def summary(stages: Mapping[str, Sequence[Row] | None]) -> str:
    """A Markdown table of all stages; None is one that was not measured.

    Args:
      stages: rows by the stage's name.
    """
    lines = []
    for name, rows in stages.items():
        if rows is None:
            lines.append([name, "", "unmeasured", "", ""])
        for row in rows or ():
            met = {None: "", True: "yes", False: "NO"}[row.met]
            lines.append([name, row.what, row.found, row.wanted, met])
    headers = ["stage", "what", "found", "asked for", "met"]
    return tabulate(lines, headers, tablefmt="pipe", disable_numparse=True)
