"""One block of a comparison: runs that differ in ε and seed alone, on one test set or several."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from nmt_ls.evaluation import significance
from nmt_ls.evaluation.calibration import merge_reliability
from nmt_ls.evaluation.resampling import SEED, generator
from nmt_ls.evaluation.translation import scores_from_statistics
from nmt_ls.study.decision import corrected, decide, lowest
from nmt_ls.study.measures import MEASURES, METRICS, Counts, finite, key, measured

EXAMPLES = 6
"""Sentences shown for being translated most differently."""
DRAWN = 4
"""Sentences shown for nothing: drawn by chance, the same in every study of a test set."""


@dataclass(frozen=True)
class Measured:
    """What one run got on the sentences of a block."""

    label_smoothing: float
    seed: int
    run: str
    results: Mapping[str, Any]
    """As in results.json, or as `measures.pool` makes them."""
    counts: Counts | None
    """Of all sentences; None where translations are not stored."""


def make_block(
    runs: Sequence[Measured],
    *,
    sentences: Mapping[str, int],
    baseline: float,
    decides: bool,
    truth: Mapping[str, Any] | None,
    samples: int,
) -> dict[str, Any]:
    """What is measured for each ε, and its differences from the baseline.

    Args:
      runs: at most one per (ε, seed), in order.
      sentences: how many sentences of the counts belong to each test set, in their order.
      baseline: the ε that the others are compared with.
      decides: whether claims about ε are made from this block.
      truth: what the true distribution gets, where it is known.
      samples: bootstrap resamples.

    Returns:
      `signatures`, `sentences`, `tokens`, `truth`, `baseline`, `by_smoothing`, `decision` and
      `calibration` (None where the block does not decide), `examples` and `drawn`, as
      `comparison.compare` says.
    """
    by_smoothing: dict[str, dict[str, Any]] = {}
    values: dict[str, dict[str, dict[int, float | None]]] = {}
    for run in runs:
        epsilon = key(run.label_smoothing)
        setting = by_smoothing.setdefault(epsilon, {"seeds": [], "runs": [], "measures": {}})
        setting["seeds"].append(run.seed)
        setting["runs"].append(run.run)
        for measure in MEASURES:
            by_seed = values.setdefault(measure, {}).setdefault(epsilon, {})
            by_seed[run.seed] = measured(run.results, measure)
    base = key(baseline)
    for epsilon, setting in by_smoothing.items():
        for measure in MEASURES:
            known = list(values[measure][epsilon].values())
            setting["measures"][measure] = significance.over_seeds(known) | {
                "values": [finite(value) for value in known]
            }
        of_epsilon = [run.results for run in runs if key(run.label_smoothing) == epsilon]
        setting["reliability"] = merge_reliability(r.get("reliability") or [] for r in of_epsilon)
        setting["differences"] = None
        if epsilon != base and base in by_smoothing:
            setting["differences"] = {
                measure: _difference(values[measure][epsilon], values[measure][base])
                for measure in MEASURES
            }
    contrasts = {e: s["differences"] for e, s in by_smoothing.items() if s["differences"]}
    _add_bootstrap(contrasts, runs, base, samples)
    _add_holm(contrasts)
    first = runs[0].results
    return {
        "signatures": {
            metric: sorted({run.results.get(f"{metric}_signature") or "" for run in runs})
            for metric in ("bleu", "chrf", "ter")
        },
        "sentences": first.get("sentences"),
        "tokens": first.get("tokens"),
        "truth": dict(truth) if truth else None,
        "baseline": baseline,
        "by_smoothing": by_smoothing,
        "decision": decide({e: d["bleu"] for e, d in contrasts.items()}) if decides else None,
        "calibration": lowest(values["ece"]) if decides else None,
        **_shown(runs, sentences),
    }


def _difference(system: dict[int, float | None], baseline: dict[int, float | None]) -> dict:
    result = significance.paired_over_seeds(system, baseline)
    return result | {"values": [finite(value) for value in result["values"]]}


def _add_bootstrap(
    contrasts: Mapping[str, dict], runs: Sequence[Measured], base: str, samples: int
) -> None:
    """Put the bootstrap over seeds and sentences beside the differences of BLEU and chrF."""
    by_cell = {(key(run.label_smoothing), run.seed): run for run in runs if run.counts}
    for metric in METRICS if contrasts and by_cell else ():
        resampled = {
            cell: significance.resample(run.counts[metric], metric, samples)
            for cell, run in by_cell.items()
            if run.counts
        }
        for epsilon, differences in contrasts.items():
            pairs = [
                (resampled[epsilon, seed], resampled[base, seed])
                for seed in differences[metric]["seeds"]
                if (epsilon, seed) in resampled and (base, seed) in resampled
            ]
            differences[metric]["bootstrap"] = (
                significance.hierarchical_difference([a for a, _ in pairs], [b for _, b in pairs])
                if pairs
                else None
            )


def _add_holm(contrasts: Mapping[str, dict]) -> None:
    """Add Holm's `p_holm` beside every `p`, over the ε contrasts of each measure."""
    for measure in MEASURES:
        tests = {epsilon: differences[measure] for epsilon, differences in contrasts.items()}
        for epsilon, p in corrected(tests).items():
            tests[epsilon]["p_holm"] = p
        resampled = [test["bootstrap"] for test in tests.values() if test.get("bootstrap")]
        p_values = significance.holm([test["p"] for test in resampled])
        for test, p in zip(resampled, p_values, strict=True):
            test["p_holm"] = p


def _shown(runs: Sequence[Measured], sentences: Mapping[str, int]) -> dict[str, list[dict]]:
    """Of the ε of the first seed: `examples`, the sentences whose chrF differs most between them,
    and `drawn`."""
    stored = [run for run in runs if run.counts]
    seed = min((run.seed for run in stored), default=None)
    of_seed = {key(run.label_smoothing): run for run in stored if run.seed == seed}
    if len(of_seed) < 2:
        return {"examples": [], "drawn": []}
    scores = {
        epsilon: scores_from_statistics(run.counts["chrf"], "chrf")
        for epsilon, run in of_seed.items()
        if run.counts
    }
    spread = np.ptp(np.array(list(scores.values())), axis=0)  # [N]
    order = sorted(range(len(spread)), key=lambda i: (-spread[i], i))[:EXAMPLES]
    by_chance = generator(SEED, purpose=2).permutation(len(spread))[:DRAWN].tolist()
    places = [(test, i) for test, count in sentences.items() for i in range(count)]
    described = {
        i: {
            "test": places[i][0],
            "sentence": places[i][1],
            "seed": seed,
            "runs": {epsilon: run.run for epsilon, run in of_seed.items()},
            "chrf": {epsilon: float(of_run[i]) for epsilon, of_run in scores.items()},
        }
        for i in {*order, *by_chance}
    }
    return {
        "examples": [described[i] for i in order if spread[i] > 0],
        "drawn": [described[i] for i in sorted(by_chance)],
    }
