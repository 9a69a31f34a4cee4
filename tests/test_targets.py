"""What was found beside what was asked for, by hand."""

import json
from pathlib import Path

import pytest

from nmt_ls.bench.gpu.targets import (
    Row,
    population_row,
    quality_row,
    ratio_rows,
    reproduction_row,
    side_rows,
    summary,
    sweep_results,
)
from nmt_ls.bench.population import ALONE

RATIOS = {
    "ratios": [
        {"what": "fused", "beside": "torch", "ratio": 0.5, "wanted": 0.45},
        {"beside": "other", "ratio": 2.0, "wanted": None},
    ]
}


def test_ratios_of_times_and_of_rates() -> None:
    times = ratio_rows(RATIOS, at_most=True)
    assert times[0] == Row("fused / torch", "0.50", "≤ 0.45", False)
    assert times[1] == Row("ours / other", "2.00")
    assert ratio_rows(RATIOS, at_most=False)[0].met is True
    assert ratio_rows({}, at_most=True) == []


def test_rates_of_sides() -> None:
    result = {"sides": [{"name": "a", "tokens_per_second": 1234.56}, {"name": "b"}]}
    assert side_rows(result, "tokens_per_second") == [Row("a, tokens per second", "1,234.6")]


def test_twelve_runs_beside_one() -> None:
    ways = [{"name": ALONE, "seconds": 12.0}, {"name": "vmap", "seconds": 2.5}]
    result = {"settings": {"members": 12}, "chosen": "vmap", "ways": ways}
    # One alone takes a twelfth of the twelve in turn: 1 s.
    assert population_row(result, 3.0) == Row("step of 12 runs, vmap / of one", "2.50", "≤ 3", True)
    assert population_row(result, 2.0).met is False


def test_a_published_figure_within_the_spread() -> None:
    # 40, 41, 42: mean 41, sd 1.
    row = reproduction_row([40, 41, 42], 43.0)
    assert row.found == "41.00 ± 1.00 (40.00 … 42.00)"
    assert row.met is True
    assert reproduction_row([40, 41, 42], 43.1).met is False
    with pytest.raises(ValueError, match="at least 2"):
        reproduction_row([41], 41)


def test_time_to_quality() -> None:
    curve = [{"step": 60, "bleu": 39.5, "seconds": 10}]
    none = {"wanted": 41, "step": None, "seconds": None, "curve": curve}
    assert quality_row(none).met is False
    assert "best 39.50" in quality_row(none).found
    assert quality_row({**none, "step": 600, "seconds": 99.6}).found == "100 (step 600)"


def test_evaluated_runs_of_a_sweep(tmp_path: Path) -> None:
    entries = [{"run": name, "label_smoothing": 0, "seed": 1} for name in ("a", "b")]
    (tmp_path / "plan.json").write_text(json.dumps({"title": "", "runs": entries}))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "results.json").write_text('{"test": {"bleu": 7}}')
    ((entry, results),) = sweep_results(tmp_path)
    assert (entry["run"], results["test"]["bleu"]) == ("b", 7)


def test_a_summary_says_what_is_unmeasured() -> None:
    text = summary({"loss": None, "train": [Row("a", "1", "≥ 2", False), Row("b", "3")]})
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    assert lines[2] == ["loss", "", "unmeasured", "", ""]
    assert lines[3] == ["train", "a", "1", "≥ 2", "NO"]
    assert lines[4] == ["train", "b", "3", "", ""]
