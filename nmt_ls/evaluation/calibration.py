"""Calibration: does a model that says 80 % hit 80 % of the time? Expected calibration error.

Its intervals are over sentences, not over tokens: the tokens of a sentence go wrong together.
"""

from collections.abc import Iterable

import numpy as np

from nmt_ls.evaluation.resampling import SAMPLES, SEED, percentiles, resampled_sums

BINS = 15


def calibration(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> dict:
    """Top-1 calibration in equal-width bins (Guo et al. 2017, eq. 3), and in bins of equal counts.

    Args:
      confidence: [N] the largest predicted probability of each token.
      correct: [N] whether the token it belongs to was the right one (bool, or 0 and 1).
      bins: number of equal-width bins over (0, 1]; each holds its upper edge, not its lower one.
        As many bins of equal counts.

    Returns:
      `ece`: Σ over bins of (count/N)·|accuracy − confidence|; `mce`: the largest such difference
      of a bin that is not empty; `mean_confidence`, `accuracy`, and `gap` = mean confidence −
      accuracy (positive: overconfident), all shares in [0, 1] and None where N is 0;
      `ece_equal_mass`: the same sum over bins of equal counts (Nguyen and O'Connor 2015), the
      tokens sorted by confidence, equal ones in the order that they came in; counts differ by one
      at most, and fewer tokens than bins have a bin each;
      `brier`: the top-1 Brier score, mean (confidence − correct)²: of the one event that the
      likeliest token is right, not of the whole distribution. Always saying 0.5 costs 0.25;
      `reliability`: per equal-width bin `low`, `high`, `count`, and mean `confidence` and
      `accuracy` (None where the bin is empty).

    Raises:
      ValueError: unequal or not one-dimensional shapes, values outside [0, 1] or not finite.
    """
    confidence, correct, index = _checked_and_binned(confidence, correct, bins)
    count = np.bincount(index, minlength=bins)
    sum_confidence = np.bincount(index, weights=confidence, minlength=bins)
    sum_correct = np.bincount(index, weights=correct, minlength=bins)
    return {
        **_summary(count, sum_confidence, sum_correct),
        "ece_equal_mass": _ece_equal_mass(confidence, correct, bins),
        "brier": float(np.mean((confidence - correct) ** 2)) if len(confidence) else None,
        "reliability": _reliability(_edges(bins), count, sum_confidence, sum_correct),
    }


def calibration_intervals(
    confidence: np.ndarray,
    correct: np.ndarray,
    sentence: np.ndarray,
    samples: int = SAMPLES,
    seed: int = SEED,
    *,
    bins: int = BINS,
) -> dict[str, list[float] | None]:
    """95 % intervals of calibration: percentiles of bootstrap resamples of the sentences.

    A drawn sentence brings all of its tokens, so that what they have in common counts once.

    Args:
      confidence, correct, bins: as `calibration` takes them.
      sentence: [N] integers; tokens with the same one are of one sentence. A sentence without
        tokens is not drawn.
      samples: number of resamples.
      seed: of the draw; with the same number of sentences the draws are those of
        `significance.resample`, so that models measured on one test set are resampled alike.

    Returns:
      `ece_ci95`, `gap_ci95` and `accuracy_ci95`, each [low, high] in shares; None where there are
      fewer than two sentences, since one says nothing of others. Noise in the bins raises an ECE on
      average, and resampling adds it a second time: the ECE of a nearly calibrated model may lie
      below its own interval. `gap` has a sign and no such bias.

    Raises:
      ValueError: what `calibration` raises; sentences that are no integers or not [N]; no samples.
    """
    confidence, correct, index = _checked_and_binned(confidence, correct, bins)
    sentence = np.asarray(sentence)
    if sentence.shape != confidence.shape:
        raise ValueError(f"expected sentences [{len(confidence)}], got {sentence.shape}")
    if sentence.size and not np.issubdtype(sentence.dtype, np.integer):
        raise ValueError(f"sentences must be integers, got {sentence.dtype}")
    if samples < 1:
        raise ValueError(f"samples={samples}, expected at least 1")
    found, owner = np.unique(sentence, return_inverse=True)
    sentences = len(found)
    if sentences < 2:
        return dict.fromkeys(("ece_ci95", "gap_ci95", "accuracy_ci95"))
    # A sentence is what it adds to each bin's confidence − correct, to the tokens and to the hits.
    excess = np.bincount(
        owner * bins + index, weights=confidence - correct, minlength=sentences * bins
    )
    tokens = np.bincount(owner, minlength=sentences)
    hits = np.bincount(owner, weights=correct, minlength=sentences)
    sums = resampled_sums(
        np.column_stack([excess.reshape(sentences, bins), tokens, hits]), samples, seed
    )
    excess, tokens, hits = sums[:, :bins], sums[:, bins], sums[:, bins + 1]
    return {
        "ece_ci95": percentiles(np.abs(excess).sum(1) / tokens),
        "gap_ci95": percentiles(excess.sum(1) / tokens),
        "accuracy_ci95": percentiles(hits / tokens),
    }


def merge_reliability(diagrams: Iterable[list[dict]]) -> list[dict]:
    """One reliability diagram over the tokens of several that have the same bins."""
    diagrams = [diagram for diagram in diagrams if diagram]
    if not diagrams:
        return []
    edges = np.array([row["low"] for row in diagrams[0]] + [diagrams[0][-1]["high"]])
    if any(len(diagram) != len(edges) - 1 for diagram in diagrams):
        raise ValueError("reliability diagrams with different numbers of bins cannot be merged")
    count = np.array([[row["count"] for row in diagram] for diagram in diagrams])
    sums = {
        key: sum(
            np.array([row[key] or 0.0 for row in diagram]) * counts
            for diagram, counts in zip(diagrams, count, strict=True)
        )
        for key in ("confidence", "accuracy")
    }
    return _reliability(edges, count.sum(0), sums["confidence"], sums["accuracy"])


def _edges(bins: int) -> np.ndarray:
    # i / bins, not linspace: each edge is then the float nearest to the fraction that it means.
    return np.arange(bins + 1) / bins


def _checked_and_binned(
    confidence: np.ndarray, correct: np.ndarray, bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """confidence and correct as float64 [N], and the equal-width bin of each."""
    confidence = np.asarray(confidence, np.float64)
    correct = np.asarray(correct, np.float64)
    if confidence.shape != correct.shape or confidence.ndim != 1:
        raise ValueError(f"expected two arrays [N], got {confidence.shape} and {correct.shape}")
    if bins < 1:
        raise ValueError(f"bins={bins}, expected at least 1")
    # A float32 softmax may overshoot 1 by a rounding error.
    for name, values in (("confidence", confidence), ("correct", correct)):
        if not np.all((values >= 0) & (values <= 1 + 1e-5)):
            raise ValueError(f"{name} must lie in [0, 1]")
    index = np.searchsorted(_edges(bins)[1:], confidence, side="left")
    return confidence, correct, np.minimum(index, bins - 1)


def _ece_equal_mass(confidence: np.ndarray, correct: np.ndarray, bins: int) -> float | None:
    tokens = len(confidence)
    if not tokens:
        return None
    order = np.argsort(confidence, kind="stable")
    bin_of_rank = np.arange(tokens) * bins // tokens
    excess = np.bincount(bin_of_rank, weights=(confidence - correct)[order])
    return float(np.abs(excess).sum() / tokens)


def _summary(count: np.ndarray, confidence: np.ndarray, correct: np.ndarray) -> dict:
    total = int(count.sum())
    if not total:
        return dict.fromkeys(("ece", "mce", "mean_confidence", "accuracy", "gap"))
    filled = count > 0
    difference = np.abs(confidence - correct)
    mean_confidence, accuracy = float(confidence.sum() / total), float(correct.sum() / total)
    return {
        "ece": float(difference.sum() / total),
        "mce": float(np.max(difference[filled] / count[filled])),
        "mean_confidence": mean_confidence,
        "accuracy": accuracy,
        "gap": mean_confidence - accuracy,
    }


def _reliability(
    edges: np.ndarray, count: np.ndarray, confidence: np.ndarray, correct: np.ndarray
) -> list[dict]:
    return [
        {
            "low": float(edges[i]),
            "high": float(edges[i + 1]),
            "count": int(count[i]),
            "confidence": float(confidence[i] / count[i]) if count[i] else None,
            "accuracy": float(correct[i] / count[i]) if count[i] else None,
        }
        for i in range(len(count))
    ]
