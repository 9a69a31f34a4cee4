"""Is a difference more than luck? Intervals and tests over seeds, over sentences, and over both.

sacreBLEU's `PairedTest` gives no interval of the difference and only resamples one pair of
systems, so the resampling is done here, on sacreBLEU's counts and with its formulas.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import special

from nmt_ls.evaluation.resampling import (
    LEVEL,
    SAMPLES,
    SEED,
    generator,
    percentiles,
    resampled_sums,
)
from nmt_ls.evaluation.translation import MetricName, scores_from_statistics

ALPHA = 0.05
"""A p-value below it is called a difference."""


def over_seeds(values: Sequence[float | None]) -> dict:
    """Mean, standard deviation and 95 % interval of one number measured with several seeds.

    Args:
      values: one number per seed; None is "not measured" and left out.

    Returns:
      `n`, `mean`, `sd` (ddof = 1), `ci95` = mean ± t · sd/√n (Student, n − 1 degrees of freedom)
      as [low, high]. What cannot be known is None: sd and ci95 with one seed, everything where a
      value is not finite (a run that diverged is no mean of the others).
    """
    known = np.array([value for value in values if value is not None], np.float64)
    result: dict = {"n": len(known), "mean": None, "sd": None, "ci95": None}
    if not len(known) or not np.all(np.isfinite(known)):
        return result
    result["mean"] = float(known.mean())
    if len(known) > 1:
        result["sd"] = float(known.std(ddof=1))
        # `special` rather than `stats`, which takes a thousand times as long for one number.
        t = special.stdtrit(len(known) - 1, (1 + LEVEL) / 2)
        half = float(t * result["sd"] / np.sqrt(len(known)))
        result["ci95"] = [result["mean"] - half, result["mean"] + half]
    return result


def paired_over_seeds(
    system: Mapping[int, float | None], baseline: Mapping[int, float | None]
) -> dict:
    """Differences between runs of the same seed, which share initialisation and data order.

    Args:
      system, baseline: seed → number; only seeds that both have are used.

    Returns:
      What `over_seeds` says of system − baseline, its `seeds` and `values`, and `p`: two-sided,
      of Student's paired t-test; None with one seed or where all differences are equal.
    """
    seeds = sorted(
        seed
        for seed in system.keys() & baseline.keys()
        if system[seed] is not None and baseline[seed] is not None
    )
    values = [float(system[seed]) - float(baseline[seed]) for seed in seeds]  # type: ignore[arg-type]
    result = over_seeds(values) | {"seeds": seeds, "values": values, "p": None}
    # Differences that are equal but for rounding have no spread that a test could use.
    largest = max((abs(float(x)) for s in seeds for x in (system[s], baseline[s])), default=0.0)  # type: ignore[arg-type]
    if result["sd"] and result["sd"] > 1e-12 * largest:
        t = result["mean"] / (result["sd"] / np.sqrt(len(values)))
        result["p"] = float(2 * special.stdtr(len(values) - 1, -abs(t)))
    return result


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values corrected for the number of tests (Holm 1979), in the given order.

    Rejecting those at most α keeps the chance of any false rejection at most α. None stays None
    and does not count as a test.
    """
    order = sorted(
        (i for i, p in enumerate(p_values) if p is not None),
        key=lambda i: p_values[i],  # type: ignore[arg-type, return-value]
    )
    adjusted: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))  # type: ignore[operator]
        adjusted[i] = largest
    return adjusted


@dataclass(frozen=True)
class Resampled:
    """A system's score on the test set and on resamples of its sentences."""

    score: float
    """Percent."""
    resamples: np.ndarray
    """[samples] percent; entry i of two systems is over the same drawn sentences."""
    sentences: int
    """Of the test set."""


def resample(
    statistics: Float[np.ndarray, "N K"],
    metric: MetricName,
    samples: int = SAMPLES,
    seed: int = SEED,
) -> Resampled:
    """Scores of bootstrap resamples of the test set: N sentences drawn with replacement.

    Args:
      statistics: [N, K] counts of each sentence, from `translation.sentence_statistics`.
      metric: which metric's counts they are.
      samples: number of resamples.
      seed: of the draw; the same seed and N give the same draws, which pairs two systems.
    """
    return Resampled(
        score=float(scores_from_statistics(statistics.sum(0, keepdims=True), metric)[0]),
        resamples=scores_from_statistics(resampled_sums(statistics, samples, seed), metric),
        sentences=len(statistics),
    )


def hierarchical_difference(
    systems: Sequence[Resampled], baselines: Sequence[Resampled], seed: int = SEED
) -> dict:
    """Difference of mean scores when both the seeds and the sentences are a sample.

    Each resample draws training seeds with replacement and, independently, one set of test
    sentences that all drawn seeds are scored on, since every run translates the same test set:
    the two are crossed (Owen 2007, "The pigeonhole bootstrap"). With one seed this is the paired
    bootstrap of Koehn (2004), and says nothing about other seeds.

    Args:
      systems, baselines: one per seed, in the same order, with the same draws.
      seed: of the draw of seeds.

    Returns:
      `difference` (system − baseline, points), `ci95` (percentiles of the resamples), `p`
      (two-sided: share of centred resamples at least as far from 0 as the difference, with the
      +1 that keeps it from being 0), `samples`, `seeds` (how many). With few seeds the interval
      is too narrow by about √((S−1)/S) in what comes from seeds; the t-interval is not. `ci95`
      and `p` are None with one sentence: every resample of it is itself.
    """
    if not systems or len(systems) != len(baselines):
        raise ValueError(f"{len(systems)} systems cannot be paired with {len(baselines)} baselines")
    # [S, samples]
    differences = np.array(
        [a.resamples - b.resamples for a, b in zip(systems, baselines, strict=True)]
    )
    count, samples = differences.shape
    drawn = generator(seed, purpose=1).integers(count, size=(count, samples))
    means = np.take_along_axis(differences, drawn, axis=0).mean(0)  # [samples]
    observed = float(np.mean([a.score - b.score for a, b in zip(systems, baselines, strict=True)]))
    # Equal systems differ by 0 in every resample: p = 1. The slack is for rounding only.
    extreme = np.sum(np.abs(means - means.mean()) >= abs(observed) - 1e-12)
    known = systems[0].sentences > 1
    return {
        "difference": observed,
        "ci95": percentiles(means) if known else None,
        "p": float((extreme + 1) / (samples + 1)) if known else None,
        "samples": samples,
        "seeds": count,
    }


def hierarchical_bootstrap(
    systems: Sequence[np.ndarray],
    baselines: Sequence[np.ndarray],
    metric: MetricName = "bleu",
    samples: int = SAMPLES,
    seed: int = SEED,
) -> dict:
    """`hierarchical_difference` from the sentences' counts ([N, K] per seed)."""
    if len({len(counts) for counts in [*systems, *baselines]}) > 1:
        raise ValueError("systems must be compared on the same sentences")
    return hierarchical_difference(
        [resample(counts, metric, samples, seed) for counts in systems],
        [resample(counts, metric, samples, seed) for counts in baselines],
        seed,
    )


def paired_bootstrap(
    system: np.ndarray,
    baseline: np.ndarray,
    metric: MetricName = "bleu",
    samples: int = SAMPLES,
    seed: int = SEED,
) -> dict:
    """Paired bootstrap of two systems on one test set (Koehn 2004), from [N, K] counts."""
    return hierarchical_bootstrap([system], [baseline], metric, samples, seed)
