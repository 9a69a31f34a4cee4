"""Calibration: does a model that says 80 % hit 80 % of the time? Expected calibration error."""

from collections.abc import Iterable

import numpy as np

BINS = 15


def calibration(confidence: np.ndarray, correct: np.ndarray, bins: int = BINS) -> dict:
    """Top-1 calibration in equal-width bins (Guo et al. 2017, eq. 3).

    Args:
      confidence: [N] the largest predicted probability of each token.
      correct: [N] whether the token it belongs to was the right one (bool, or 0 and 1).
      bins: number of equal-width bins over (0, 1]; each holds its upper edge, not its lower one.

    Returns:
      `ece`: Σ over bins of (count/N)·|accuracy − confidence|; `mce`: the largest such difference
      of a bin that is not empty; `mean_confidence`, `accuracy`, and `gap` = mean confidence −
      accuracy (positive: overconfident), all shares in [0, 1] and None where N is 0;
      `reliability`: per bin `low`, `high`, `count`, and mean `confidence` and `accuracy` (None
      where the bin is empty).

    Raises:
      ValueError: unequal or not one-dimensional shapes, values outside [0, 1] or not finite.
    """
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
    # i / bins, not linspace: each edge is then the float nearest to the fraction that it means.
    edges = np.arange(bins + 1) / bins
    index = np.minimum(np.searchsorted(edges[1:], confidence, side="left"), bins - 1)
    count = np.bincount(index, minlength=bins)
    sum_confidence = np.bincount(index, weights=confidence, minlength=bins)
    sum_correct = np.bincount(index, weights=correct, minlength=bins)
    return {
        **_summary(count, sum_confidence, sum_correct),
        "reliability": _reliability(edges, count, sum_confidence, sum_correct),
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
