"""The parts of a comparison that are drawn alike: a test set, of runs that share their settings."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from nmt_ls.study.comparison import Run
from nmt_ls.study.figures.drawing import Summary, summaries
from nmt_ls.study.strength import Strength, strength_in
from nmt_ls.study.wording import key


@dataclasses.dataclass(frozen=True)
class Block:
    """One entry of comparison["tests"] or ["pooled"], and the runs that it was made of."""

    label: str
    """The test set's name, with the settings where runs differ in them; its key in
    comparison["tests"]. What is pooled over several has a name of its own."""
    result: Mapping[str, Any]
    runs: Sequence[Run]
    """In the order of ε, then seed. Without any where test sets are pooled: results are of one."""

    @property
    def test(self) -> str:
        """The test set's name."""
        return self.result.get("test", self.label)

    @property
    def settings(self) -> dict[str, Any]:
        """What these runs were set to and others were not."""
        return self.result.get("settings") or {}

    @property
    def strength(self) -> Strength:
        """What its ε, or β, is called."""
        return strength_in(self.result)

    def measure(self, name: str) -> dict[str, Any]:
        """Per ε the summary of one of the comparison's measures."""
        measures = {e: s["measures"].get(name) for e, s in self.result["by_smoothing"].items()}
        return {e: m for e, m in measures.items() if m is not None}

    def summary(self, measure: str, *path: str) -> dict[str, Summary]:
        """Per ε a measure of the comparison or, where it has none, what results hold at `path`."""
        known = self.measure(measure)
        if any(summary["mean"] is not None for summary in known.values()):
            return known
        return summaries(self.found(*path))

    def results(self) -> Iterator[tuple[str, Mapping[str, Any]]]:
        """(ε, the run's results on this test set) of each run."""
        for run in self.runs:
            yield key(run["label_smoothing"]), run["results"][self.test]

    def found(self, *path: str) -> dict[str, list[Any]]:
        """Per ε what its runs' results hold there; without those that hold nothing."""
        values: dict[str, list[Any]] = {}
        for epsilon, here in self.results():
            value: Any = here
            for name in path:
                value = value.get(name) if isinstance(value, Mapping) else None
            if value is not None:
                values.setdefault(epsilon, []).append(value)
        return values


def blocks_of(comparison: Mapping[str, Any], runs: Sequence[Run]) -> list[Block]:
    """The blocks of comparison["tests"], in its order."""
    ordered = sorted(runs, key=lambda run: (run["label_smoothing"], run["seed"]))
    blocks = []
    for label, result in comparison["tests"].items():
        test, settings = result.get("test", label), result.get("settings") or {}
        mine = [
            run
            for run in ordered
            if test in run["results"] and (run.get("settings") or {}) == settings
        ]
        blocks.append(Block(label, result, mine))
    return blocks


def pooled_blocks(comparison: Mapping[str, Any]) -> list[Block]:
    """What comparison["pooled"] says of several test sets together; none where there is one."""
    tests = comparison["tests"].items()
    if len({result.get("test", label) for label, result in tests}) < 2:
        return []
    return [
        Block(f"all test sets{f' ({label})' if label else ''}", result, ())
        for label, result in (comparison.get("pooled") or {}).items()
    ]


def rows_by_bucket(
    found: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], bucket: Sequence[str], value: str
) -> tuple[list[tuple], dict[str, list[float | None]]]:
    """Tables of rows, one per run, as lines over the rows that occur in any of them.

    Args:
      found: per ε the tables of its runs.
      bucket: the fields that say which row it is.
      value: the field that is averaged over runs.

    Returns:
      The buckets in the order in which tables have them, and per ε a value for each, None where no
      run has one.
    """
    buckets = dict.fromkeys(
        tuple(row[name] for name in bucket)
        for tables in found.values()
        for table in tables
        for row in table
    )
    order = sorted(buckets, key=lambda item: item[0])
    lines: dict[str, list[float | None]] = {}
    for epsilon, tables in found.items():
        lines[epsilon] = []
        for item in order:
            values = [
                row[value]
                for table in tables
                for row in table
                if tuple(row[name] for name in bucket) == item and row[value] is not None
            ]
            lines[epsilon].append(sum(values) / len(values) if values else None)
    return order, lines
