"""Selective prediction: how good are the translations that a model is surest of?

References: Geifman and El-Yaniv, "Selective Classification for Deep Neural Networks" (NIPS 2017);
Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers"
(ICLR 2019), for the area and its excess.
"""

import numpy as np

POINTS = 50


def risk_coverage(confidence: np.ndarray, risk: np.ndarray) -> dict:
    """Mean risk of what is kept when only the sentences of highest confidence are kept.

    Only the order of the confidences matters. Equal ones are in no order: each has the mean risk
    of all that are equal to it, which gives exactly the mean over every order that they could
    have.

    Args:
      confidence: [N] of each sentence, on any scale, larger is surer; −inf is allowed.
      risk: [N] what keeping it costs, in any unit, smaller is better (1 − chrF, TER, or 0 and 1
        for right and wrong).

    Returns:
      `aurc`: area under the curve, the mean over k = 1 … N of the mean risk of the k surest, in
      the unit of `risk`; `excess_aurc`: that minus the area of the best order there is, by risk
      itself, so that 0 is a perfect order; both None where N is 0;
      `points`: [coverage, risk] with coverage = k/N in (0, 1], at most 50 and evenly spread, the
      last with everything kept.

    Raises:
      ValueError: unequal or not one-dimensional shapes, a NaN, or an infinite risk.
    """
    confidence = np.asarray(confidence, np.float64)
    risk = np.asarray(risk, np.float64)
    if confidence.shape != risk.shape or confidence.ndim != 1:
        raise ValueError(f"expected two arrays [N], got {confidence.shape} and {risk.shape}")
    if np.any(np.isnan(confidence)) or not np.all(np.isfinite(risk)):
        raise ValueError("a confidence is NaN, or a risk is not finite")
    sentences = len(risk)
    if not sentences:
        return {"aurc": None, "excess_aurc": None, "points": []}
    _, group, size = np.unique(-confidence, return_inverse=True, return_counts=True)
    of_group = np.bincount(group, weights=risk) / size
    curve = _mean_of_first(np.repeat(of_group, size))
    aurc = float(curve.mean())
    best = float(_mean_of_first(np.sort(risk)).mean())
    points = min(POINTS, sentences)
    kept = -(-np.arange(1, points + 1) * sentences // points)  # rounded up
    return {
        "aurc": aurc,
        "excess_aurc": max(0.0, aurc - best),  # below 0 only by rounding
        "points": [[k / sentences, float(curve[k - 1])] for k in kept.tolist()],
    }


def _mean_of_first(values: np.ndarray) -> np.ndarray:
    """[N]: entry k − 1 is the mean of the first k."""
    return np.cumsum(values) / np.arange(1, len(values) + 1)
