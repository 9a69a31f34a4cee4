"""How often a study would find that some ε matters, were there nothing to find.

`python -m nmt_ls.study.false_alarms` simulates studies in which every ε is the same and prints the
share in which some ε is said to differ, by the rule of `decision` and by others that are in use.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Int
from tabulate import tabulate

from nmt_ls.evaluation.resampling import SEED, generator
from nmt_ls.evaluation.significance import ALPHA, holm, paired_over_seeds
from nmt_ls.study.decision import decide, lowest

SMOOTHING = ("0.0", "0.05", "0.1", "0.2", "0.3", "0.4", "0.5")
"""The first is the baseline."""

SEED_EFFECT, NOISE = 0.3, 0.3
"""Standard deviations in BLEU points, of what all ε of a seed share and of what each run adds.
What is shared cancels in paired differences, and rates depend on neither."""

_ENUMERATED = 6
"""Up to so many seeds S all S^S resamples are enumerated; of more seeds, 10,000 are drawn."""


@dataclass(frozen=True)
class Rates:
    """Shares of null studies, in [0, 1]."""

    decided: float
    """Some ε differs, by `decision.decide`: t-tests over seeds, Holm."""
    uncorrected: float
    """The same without Holm."""
    bootstrap: float
    """Some ε's 95 % percentile interval of the resampled seeds leaves 0 out."""
    bootstrap_holm: float
    """Bootstrap p-values of the resampled seeds, with Holm."""
    one_contrast: float
    """The first contrast alone, by its t-test."""
    one_contrast_bootstrap: float
    """The first contrast alone, by its percentile interval."""
    lowest: float
    """Some ε is said to be the lowest, by `decision.lowest`."""


def null_studies(
    studies: int, seeds: int, smoothing: int = len(SMOOTHING), seed: int = SEED
) -> Iterator[Float[np.ndarray, "E S"]]:
    """Scores [ε, seed] of studies in which no ε does anything: seed effect + noise, both normal."""
    random = generator(seed, purpose=0)
    for _ in range(studies):
        shared = random.normal(scale=SEED_EFFECT, size=seeds)
        yield 30 + shared + random.normal(scale=NOISE, size=(smoothing, seeds))


def false_alarms(studies: int, seeds: int, seed: int = SEED) -> Rates:
    """The rates of `Rates` over so many null studies of seven ε, each with these seeds."""
    resamples = _resamples(seeds, seed)
    found = np.zeros(7)
    for scores in null_studies(studies, seeds, seed=seed):
        of = {e: dict(enumerate(row.tolist())) for e, row in zip(SMOOTHING, scores, strict=True)}
        differences = {e: paired_over_seeds(of[e], of[SMOOTHING[0]]) for e in SMOOTHING[1:]}
        p_values = [difference["p"] for difference in differences.values()]
        means = np.array([d["values"] for d in differences.values()])[:, resamples].mean(-1)
        low, high = np.quantile(means, [ALPHA / 2, 1 - ALPHA / 2], axis=1)
        outside = (low > 0) | (high < 0)
        observed = np.array([d["mean"] for d in differences.values()])[:, None]
        # As `significance.hierarchical_difference` has it.
        extreme = np.abs(means - means.mean(1, keepdims=True)) >= np.abs(observed) - 1e-12
        bootstrap_p = (extreme.sum(1) + 1) / (len(resamples) + 1)
        best = lowest(of)
        found += [
            bool(decide(differences)["differs"]),
            min(p_values) < ALPHA,
            outside.any(),
            min(p for p in holm(bootstrap_p.tolist()) if p is not None) < ALPHA,
            p_values[0] < ALPHA,
            outside[0],
            best is not None and best["decided"],
        ]
    return Rates(*(found / studies).tolist())


def _resamples(seeds: int, seed: int) -> Int[np.ndarray, "R S"]:
    if seeds <= _ENUMERATED:
        return np.array(list(product(range(seeds), repeat=seeds)))
    return generator(seed, purpose=1).integers(seeds, size=(10_000, seeds))


def table(studies: int, seeds: list[int]) -> str:
    """Rates in percent, a row per rule and a column per number of seeds."""
    found = [false_alarms(studies, count) for count in seeds]
    rules = {
        "some ε of 6 differs: t-test over seeds, Holm (what decides here)": "decided",
        "… without Holm": "uncorrected",
        "… bootstrap over seeds, 95 % percentile intervals": "bootstrap",
        "… bootstrap over seeds, p-values, Holm": "bootstrap_holm",
        "one contrast: t-test over seeds": "one_contrast",
        "… bootstrap over seeds, 95 % percentile interval": "one_contrast_bootstrap",
        "some ε of 7 is called best calibrated": "lowest",
    }
    rows = [
        [rule, *(f"{100 * getattr(rates, name):.1f}" for rates in found)]
        for rule, name in rules.items()
    ]
    headers = ["false alarms, %", *(f"{count} seeds" for count in seeds)]
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=2000, help="simulated studies")
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10], help="of each ε")
    arguments = parser.parse_args()
    print(table(arguments.studies, arguments.seeds))
