"""Likelihood of the references under a model: hard labels, natural log, no smoothing anywhere."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from nmt_ls.data.evaluation_sets import EvaluationSet
from nmt_ls.evaluation.calibration import calibration, calibration_intervals
from nmt_ls.losses import TokenStatistics


def likelihood(
    statistics: Sequence[TokenStatistics], data: EvaluationSet, unknown: int
) -> dict[str, Any]:
    """Perplexity and calibration of teacher-forced tokens, end-of-sentence included.

    Args:
      statistics: of each first reference, from `score_tokens`.
      data: the set they are of.
      unknown: the id of `<unk>`.

    Returns:
      `nll_per_token` (nats), `perplexity` (its exponential), `nll_per_character` (Σ nll over the
      Unicode code points of the raw references) and `nll_per_word` (over their white-space words;
      both None where an `<unk>` was met, since it hides characters), `nll_total`, `tokens`,
      `entropy` (mean, nats), what `calibration` measures and its intervals over sentences; and
      `without_end_of_sentence`: the calibration, nll and entropy of the other tokens alone.
    """

    def all_of(name: str, end: int | None = None) -> np.ndarray:
        parts = [np.asarray(getattr(s, name), np.float64)[:end] for s in statistics]
        return np.concatenate(parts) if parts else np.zeros(0)

    nll = all_of("nll")
    total, tokens = float(nll.sum()), len(nll)
    characters = sum(len(references[0]) for references in data.references)
    words = sum(len(references[0].split()) for references in data.references)
    sentence = np.repeat(np.arange(len(statistics)), [len(s.nll) for s in statistics])
    met_unknown = any((ids == unknown).any() for ids in data.target_ids)
    mean = total / tokens if tokens else math.nan
    return {
        "nll_per_token": mean,
        "perplexity": perplexity_of(mean),
        "nll_per_character": None if met_unknown or not characters else total / characters,
        "nll_total": total,
        "tokens": tokens,
        "entropy": _mean(all_of("entropy")),
        "nll_per_word": None if met_unknown or not words else total / words,
        **calibration(all_of("confidence"), all_of("correct")),
        **calibration_intervals(all_of("confidence"), all_of("correct"), sentence),
        "without_end_of_sentence": {
            **calibration(all_of("confidence", -1), all_of("correct", -1)),
            "nll_per_token": _mean(all_of("nll", -1)),
            "entropy": _mean(all_of("entropy", -1)),
        },
    }


def nll_per_token(statistics: Sequence[TokenStatistics]) -> float:
    """Σ nll over the number of tokens, nats; NaN without tokens."""
    parts = [np.asarray(s.nll, np.float64) for s in statistics]
    nll = np.concatenate(parts) if parts else np.zeros(0)
    return float(nll.sum()) / len(nll) if len(nll) else math.nan


def perplexity_of(nll: float) -> float:
    """exp of nats per token; infinite where a float has no room for it."""
    return math.inf if nll >= 700 else math.exp(nll)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan
