"""What a comparison measures of a run, on one test set and on several taken together."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from nmt_ls.evaluation.calibration import merge_reliability
from nmt_ls.evaluation.likelihood import perplexity_of
from nmt_ls.evaluation.risk_coverage import risk_coverage
from nmt_ls.evaluation.tokenizers import DEFAULT
from nmt_ls.evaluation.translation import (
    MetricName,
    scores_from_statistics,
    sentence_statistics,
    ter_reference_length,
)

MEASURES = (
    "bleu",
    "chrf",
    "ter",
    "perplexity",
    "nll_per_token",
    "nll_per_character",
    "nll_temperature",
    "nll_unmixed",
    "nll_both",
    "entropy",
    "ece",
    "mean_confidence",
    "accuracy",
    "gap",
    "inference_ece",
    "aurc",
    "length_ratio",
    "empty_outputs",
    "nll_training",
    "nll_gap",
    "recall_rare",
    "recall_frequent",
    "scatter",
)

METRICS: tuple[MetricName, ...] = ("bleu", "chrf")
"""What is resampled over sentences."""

_RECALL = {"recall_rare": (0, 9), "recall_frequent": (10, math.inf)}
"""Bounds of a word's frequency in the training text."""

_ADJUSTED = {"nll_temperature": "temperature", "nll_unmixed": "unmixed", "nll_both": "both"}

Counts = Mapping[MetricName, Float[np.ndarray, "N K"]]
"""By metric, the counts of each sentence (`translation.sentence_statistics`)."""


def key(label_smoothing: float) -> str:
    """How an ε is written as a key of comparison.json: `0.0`, `0.1`."""
    return str(float(label_smoothing))


def finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity; they become null."""
    return value if value is not None and math.isfinite(value) else None


def measured(results: Mapping[str, Any], measure: str) -> float | None:
    """One of `MEASURES` in a test set's results; None where it was not measured.

    `nll_temperature`, `nll_unmixed` and `nll_both` are nll per token (nats) of the distribution
    with the temperature, the un-mixing or both fitted on validation text; `inference_ece` is of
    the words that search chose; `aurc` the area under risk and coverage of sentences;
    `nll_training` nll per token of training pairs and `nll_gap` that of the test set minus it;
    `recall_rare` the share of reference words found again among those that training saw at most 9
    times, `recall_frequent` among the others; `scatter` the variance of hidden states within words
    over that between them (`projection.scatter`).
    """
    if measure == "gap" and "gap" not in results:
        confidence, accuracy = results.get("mean_confidence"), results.get("accuracy")
        return None if confidence is None or accuracy is None else confidence - accuracy
    if measure in _ADJUSTED:
        return _within(results, "adjusted", _ADJUSTED[measure]).get("nll_per_token")
    if measure == "inference_ece":
        return _within(results, "inference_calibration").get("ece")
    if measure == "aurc":
        return _within(results, "risk_coverage").get("aurc")
    if measure == "nll_training":
        return _within(results, "training").get("nll_per_token")
    if measure == "nll_gap":
        known, new = measured(results, "nll_training"), results.get("nll_per_token")
        return None if known is None or new is None else new - known
    if measure in _RECALL and measure not in results:
        return _recall(results.get("by_word_frequency") or [], *_RECALL[measure])
    if measure == "scatter":
        return _within(results, "projection", "hidden").get("ratio")
    if measure == "perplexity" and results.get(measure) is None:
        # JSON has no infinity; a run that blew up must not count as one that was not measured.
        nll = results.get("nll_per_token")
        return None if nll is None or nll < 700 else math.inf
    return results.get(measure)


def _recall(rows: Sequence[Mapping[str, Any]], least: int, most: float) -> float | None:
    """Σ right / Σ words over the buckets of frequency between two bounds."""
    chosen = [r for r in rows if r["words"] and r["low"] >= least and r["low"] <= most]
    return _ratio([r["recall"] * r["words"] for r in chosen], [r["words"] for r in chosen])


def pool(
    results: Sequence[Mapping[str, Any]],
    counts: Sequence[Counts | None],
    ter_lengths: Sequence[float | None],
    confidences: Sequence[Sequence[float] | None] = (),
) -> dict[str, Any]:
    """One run's results on several test sets as if they were one set.

    Every number is a quotient of sums, never a mean of the sets' numbers: BLEU, chrF and the
    length ratio from the counts of all sentences, TER from all edits, nll and what follows from it
    from Σ nll over Σ tokens, ECE from the reliability bins of all tokens. The AURC ranks all
    sentences anew, by their confidences. What one of the sets lacks is None.

    Args:
      results: of each test set, as in results.json.
      counts: of each test set, None where its translations are not stored.
      ter_lengths: `translation.ter_reference_length` of each, None where references are not.
      confidences: of each test set, those of its sentences (nats per token of the translation),
        None where they are not stored.

    Returns:
      The measures that `measured` reads, `reliability`, `sentences`, `tokens`. One test set alone
      keeps its results as they are.
    """
    if len(results) == 1:
        return dict(results[0])
    tokens = [r.get("tokens") for r in results]
    sentences = [r.get("sentences") for r in results]
    nll = [_product(measured(r, "nll_per_token"), n) for r, n in zip(results, tokens, strict=True)]
    if all(r.get("nll_total") is not None for r in results):
        nll = [r["nll_total"] for r in results]
    mean, both = _ratio(nll, tokens), list(zip(results, nll, strict=True))
    reliability = [r.get("reliability") for r in results]
    bins = merge_reliability(d for d in reliability if d) if all(reliability) else []
    pooled: dict[str, Any] = {
        "sentences": _sum(sentences),
        "tokens": _sum(tokens),
        "nll_total": _sum(nll),
        "nll_per_token": mean,
        "perplexity": None if mean is None else perplexity_of(mean),
        "nll_per_character": _ratio(nll, [_characters(r, n) for r, n in both]),
        "reliability": bins,
        "ece": _ece(bins),
        "inference_calibration": {"ece": _inference_ece(results)},
    }
    for measure in ("entropy", "mean_confidence", "accuracy"):
        pooled[measure] = _mean(results, measure, tokens)
    pooled["adjusted"] = {
        kind: {"nll_per_token": _mean(results, measure, tokens)}
        for measure, kind in _ADJUSTED.items()
    }
    known = [r.get("training") for r in results]
    pooled["training"] = known[0] if known.count(known[0]) == len(known) else None
    words = [r.get("by_word_frequency") for r in results]
    for measure, bounds in _RECALL.items():
        every = [row for of_set in words for row in of_set or []]
        pooled[measure] = _recall(every, *bounds) if all(words) else None
    pooled["empty_outputs"] = _mean(results, "empty_outputs", sentences)
    pooled["ter"] = _mean(results, "ter", ter_lengths)
    stored = [c for c in counts if c]
    if len(stored) == len(results):
        for metric, rows in joined(stored).items():
            sums = rows.sum(0)  # [K]
            pooled[metric] = float(scores_from_statistics(sums[None], metric)[0])
            if metric == "bleu":
                pooled["length_ratio"] = _ratio([float(sums[0])], [float(sums[1])])
        if len(confidences) == len(results) and all(c is not None for c in confidences):
            surest = np.concatenate([c for c in confidences if c is not None])
            risk = 1 - scores_from_statistics(joined(stored)["chrf"], "chrf") / 100
            pooled["risk_coverage"] = risk_coverage(surest, risk)
    return pooled


def counts_of(
    systems: Sequence[Sequence[str]], references: Sequence[Sequence[str]], tokenize: str = DEFAULT
) -> list[Counts]:
    """By metric, the counts of each sentence of each system; `tokenize` splits words for BLEU."""
    by_metric = {m: sentence_statistics(systems, references, m, tokenize) for m in METRICS}
    return [{m: arrays[i] for m, arrays in by_metric.items()} for i in range(len(systems))]


def joined(counts: Sequence[Counts]) -> Counts:
    """The counts of several test sets as one, their sentences in that order."""
    return {metric: np.concatenate([c[metric] for c in counts]) for metric in METRICS}


def reference_length(references: Sequence[Sequence[str]] | None) -> float | None:
    """What a TER is a share of; None without references."""
    return None if references is None else ter_reference_length(references)


def _within(results: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
    found: Any = results
    for name in names:
        found = (found or {}).get(name)
    return found or {}


def _product(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a * b


def _sum(values: Sequence[Any]) -> Any:
    return None if any(value is None for value in values) else sum(values)


def _ratio(above: Sequence[float | None], below: Sequence[float | None]) -> float | None:
    numerator, denominator = _sum(above), _sum(below)
    return None if numerator is None or not denominator else numerator / denominator


def _mean(
    results: Sequence[Mapping[str, Any]], measure: str, weights: Sequence[float | None]
) -> float | None:
    values = [measured(r, measure) for r in results]
    return _ratio([_product(v, w) for v, w in zip(values, weights, strict=True)], weights)


def _characters(results: Mapping[str, Any], nll: float | None) -> float | None:
    """How many characters the references have, from the two nll that results hold."""
    per_character = results.get("nll_per_character")
    return None if nll is None or not per_character else nll / per_character


def _ece(bins: Sequence[Mapping[str, Any]]) -> float | None:
    """Σ over bins of (count/N)·|accuracy − confidence|."""
    total = sum(row["count"] for row in bins)
    if not total:
        return None
    filled = [row for row in bins if row["count"]]
    return sum(row["count"] * abs(row["accuracy"] - row["confidence"]) for row in filled) / total


def _inference_ece(results: Sequence[Mapping[str, Any]]) -> float | None:
    diagrams = [_within(r, "inference_calibration").get("reliability") for r in results]
    return _ece(merge_reliability(d for d in diagrams if d)) if all(diagrams) else None
