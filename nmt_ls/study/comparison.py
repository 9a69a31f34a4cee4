"""What smoothing did: finished runs → means, intervals, differences, and the words for them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from nmt_ls.errors import UserError
from nmt_ls.evaluation import significance
from nmt_ls.evaluation.calibration import merge_reliability
from nmt_ls.evaluation.translation import scores_from_statistics, sentence_statistics
from nmt_ls.study.wording import finite, key, measured, results_csv, sentence, table

FORMAT_VERSION = 1
__all__ = ["compare", "results_csv", "sentence", "table"]

MEASURES = (
    "bleu",
    "chrf",
    "ter",
    "perplexity",
    "nll_per_token",
    "nll_per_character",
    "ece",
    "mean_confidence",
    "accuracy",
    "gap",
    "length_ratio",
)
EXAMPLES = 6
PRIMARY = 0.1

Run = dict[str, Any]


def compare(
    runs: Sequence[Run],
    baseline: float | None = None,
    truth: dict[str, dict] | None = None,
    samples: int = significance.SAMPLES,
) -> dict:
    """The content of comparison.json.

    Args:
      runs: finished runs: `label_smoothing`, `seed`, `run` (directory name), `results` (as in
        results.json), and `translations` and `references` by test set.
      baseline: the ε that the others are compared with; None: 0 where it was run, else the
        smallest.
      truth: for the built-in corpus, what the true distribution gets, by test set
        (`perplexity_floor`, `nll_floor`, `bleu_oracle`, …).
      samples: bootstrap resamples.

    Returns:
      `baseline`, `primary` (the ε whose contrast is reported first, chosen before seeing any
      number: 0.1 if it was run, else the next above the baseline), `smoothing` (all ε), and
      `tests`: per test set its `signatures`, `sentences`, `truth`, `examples`, and
      `by_smoothing`: per ε `seeds`, `runs`, `measures` (`significance.over_seeds` of each),
      `reliability` (pooled over seeds) and `differences` from the baseline, None for itself:
      per measure `significance.paired_over_seeds` and `p_holm` (over the ε contrasts of this
      test set and measure); BLEU and chrF also `bootstrap`, over seeds and
      sentences.

    Raises:
      UserError: no runs, two runs of one (ε, seed), no run at `baseline`, or runs that were
        evaluated on different references.
    """
    if not runs:
        raise UserError("no finished run to compare; `nmt-ls sweep` trains and evaluates them")
    cells: dict[tuple[float, int], str] = {}
    for run in runs:
        cell = (float(run["label_smoothing"]), int(run["seed"]))
        if cell in cells:
            raise UserError(f"{cells[cell]} and {run['run']} are both ε={cell[0]}, seed {cell[1]}")
        cells[cell] = run["run"]
    smoothing = sorted({cell[0] for cell in cells})
    if baseline is None:
        baseline = 0.0 if 0.0 in smoothing else smoothing[0]
    elif baseline not in smoothing:
        raise UserError(f"no finished run has the baseline ε={baseline}; there is {smoothing}")
    contrasts = [value for value in smoothing if value != baseline]
    above = [value for value in contrasts if value > baseline] or contrasts
    tests = dict.fromkeys(name for run in runs for name in run["results"])
    return {
        "format_version": FORMAT_VERSION,
        "baseline": baseline,
        "primary": PRIMARY if PRIMARY in contrasts else next(iter(above), None),
        "smoothing": smoothing,
        "tests": {
            name: _compare_test(
                sorted(
                    (run for run in runs if name in run["results"]),
                    key=lambda run: (run["label_smoothing"], run["seed"]),
                ),
                name,
                float(baseline),
                (truth or {}).get(name),
                samples,
            )
            for name in tests
        },
    }


def _compare_test(
    runs: list[Run], name: str, baseline: float, truth: dict | None, samples: int
) -> dict:
    statistics = _statistics(runs, name)
    resampled = {
        metric: {
            run: significance.resample(counts, metric, samples) for run, counts in by_run.items()
        }
        for metric, by_run in statistics.items()
    }
    settings: dict[str, dict] = {}
    values: dict[str, dict[str, dict[int, float | None]]] = {}
    by_cell = {(key(run["label_smoothing"]), run["seed"]): run["run"] for run in runs}
    for run in runs:
        epsilon, results = key(run["label_smoothing"]), run["results"][name]
        setting = settings.setdefault(
            epsilon, {"seeds": [], "runs": [], "measures": {}, "reliability": []}
        )
        setting["seeds"].append(run["seed"])
        setting["runs"].append(run["run"])
        setting["reliability"].append(results.get("reliability"))
        for measure in MEASURES:
            by_seed = values.setdefault(epsilon, {}).setdefault(measure, {})
            by_seed[run["seed"]] = measured(results, measure)
    base = key(baseline)
    for epsilon, setting in settings.items():
        setting["reliability"] = merge_reliability(setting["reliability"])
        setting["differences"] = None
        for measure in MEASURES:
            by_seed = values[epsilon][measure]
            setting["measures"][measure] = significance.over_seeds(list(by_seed.values())) | {
                "values": [finite(value) for value in by_seed.values()]
            }
        if epsilon != base and base in values:
            setting["differences"] = {
                measure: _finite_difference(values[epsilon][measure], values[base][measure])
                for measure in MEASURES
            }
            for metric, by_run in resampled.items():
                pairs = [
                    (by_run[by_cell[epsilon, seed]], by_run[by_cell[base, seed]])
                    for seed in setting["differences"][metric]["seeds"]
                    if by_cell[epsilon, seed] in by_run and by_cell[base, seed] in by_run
                ]
                setting["differences"][metric]["bootstrap"] = (
                    significance.hierarchical_difference(
                        [a for a, _ in pairs], [b for _, b in pairs]
                    )
                    if pairs
                    else None
                )
    _correct_for_contrasts([s["differences"] for s in settings.values() if s["differences"]])
    first = runs[0]["results"][name]
    return {
        "signatures": {
            metric: sorted({run["results"][name].get(f"{metric}_signature") or "" for run in runs})
            for metric in ("bleu", "chrf", "ter")
        },
        "sentences": first.get("sentences"),
        "tokens": first.get("tokens"),
        "truth": truth,
        "by_smoothing": settings,
        "examples": _examples(runs, statistics.get("chrf", {})),
    }


def _finite_difference(system: dict, baseline: dict) -> dict:
    result = significance.paired_over_seeds(system, baseline)
    return result | {"values": [finite(value) for value in result["values"]]}


def _statistics(runs: list[Run], name: str) -> dict[Any, dict[str, Any]]:
    """metric → run → [N, K] counts of the runs whose translations are stored."""
    stored = [run for run in runs if run.get("translations", {}).get(name)]
    if not stored:
        return {}
    references = stored[0]["references"][name]
    for run in stored:
        if run["references"][name] != references:
            raise UserError(
                f"{stored[0]['run']} and {run['run']} were evaluated on different references of "
                f"{name}; evaluate both again"
            )
    systems = [run["translations"][name] for run in stored]
    names = [run["run"] for run in stored]
    return {
        metric: dict(zip(names, sentence_statistics(systems, references, metric), strict=True))
        for metric in ("bleu", "chrf")
    }


def _correct_for_contrasts(contrasts: list[dict]) -> None:
    """Add Holm's `p_holm` beside every `p`, over the ε contrasts of each measure."""
    for measure in MEASURES:
        tests = [contrast[measure] for contrast in contrasts]
        for group in (tests, [test["bootstrap"] for test in tests if test.get("bootstrap")]):
            for test, p in zip(group, significance.holm([t["p"] for t in group]), strict=True):
                test["p_holm"] = p


def _examples(runs: list[Run], statistics: dict[str, Any]) -> list[dict]:
    """The sentences whose chrF differs most between the ε of the first seed."""
    seed = min((run["seed"] for run in runs if run["run"] in statistics), default=None)
    scores = {
        key(run["label_smoothing"]): scores_from_statistics(statistics[run["run"]], "chrf")
        for run in runs
        if run["seed"] == seed and run["run"] in statistics
    }
    if len(scores) < 2:
        return []
    spread = np.ptp(np.array(list(scores.values())), axis=0)  # [N]
    order = sorted(range(len(spread)), key=lambda i: (-spread[i], i))[:EXAMPLES]
    return [
        {"sentence": i, "seed": seed, "chrf": {e: float(s[i]) for e, s in scores.items()}}
        for i in order
        if spread[i] > 0
    ]
