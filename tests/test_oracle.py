"""The built-in corpus as a model that knows the truth: its likelihood and calibration.

Whoever predicts with the true distribution is calibrated, and no model has less nll in expectation.
What measures models must say so of it.
"""

import math
from functools import cache

import numpy as np
import pytest

from nmt_ls.data.phrasebook import Phrasebook
from nmt_ls.data.phrasebook.truth import next_token_probabilities
from nmt_ls.evaluation.calibration import calibration

SOURCES = 1000
TOKENS = 200_000
END = "</s>"


@cache
def pairs():
    return tuple(Phrasebook("small").pairs("test", SOURCES, seed=3))


@cache
def translations():
    """Of each source its targets as words, with their probabilities."""
    book = Phrasebook("small")
    return [[(tuple(t.split()), p) for t, p in book.translations(source)] for source, _ in pairs()]


@cache
def scored(sentence: int, words: tuple[str, ...]):
    """(nll, confidence, correct) of each word of a target, the end included, by the truth."""
    nll, confidence, correct = [], [], []
    for position, word in enumerate((*words, END)):
        known = next_token_probabilities(translations()[sentence], words[:position], END)
        best = max(known, key=known.__getitem__)
        nll.append(-math.log(known[word]))
        confidence.append(known[best])
        correct.append(best == word)
    return np.array(nll), np.array(confidence), np.array(correct)


def test_the_oracle_scores_what_the_corpus_says_it_does():
    drawn = [scored(i, tuple(target.split())) for i, (_, target) in enumerate(pairs())]
    totals = np.array([nll.sum() for nll, _, _ in drawn])
    tokens = np.array([len(nll) for nll, _, _ in drawn])
    truth = Phrasebook("small").truth(pairs(), str.split)
    assert tokens.sum() == truth.tokens
    assert totals.sum() / tokens.sum() == pytest.approx(truth.nll_oracle, rel=1e-6)
    # A ratio's standard error, by the variance of what each sentence adds to it.
    mean = totals.sum() / tokens.sum()
    error = np.sqrt(np.sum((totals - mean * tokens) ** 2)) / tokens.sum()
    assert abs(mean - truth.nll_floor) < 4 * error
    assert error < 0.1 * truth.nll_floor  # or the line above would say nothing


def test_the_oracle_is_calibrated():
    generator = np.random.default_rng(5)
    confidence, correct, tokens = [], [], 0
    while tokens < TOKENS:
        for i, listed in enumerate(translations()):
            drawn = generator.choice(len(listed), p=np.array([p for _, p in listed]))
            _, sure, right = scored(i, listed[drawn][0])
            confidence.append(sure)
            correct.append(right)
            tokens += len(sure)
    found = calibration(np.concatenate(confidence), np.concatenate(correct))
    assert found["ece"] < 0.005
    assert abs(found["gap"]) < 0.005
    # It is not so for want of doubt: some of its tokens are far from sure.
    unsure = sum(row["count"] for row in found["reliability"] if row["high"] < 0.9)
    assert unsure > 0.01 * tokens
    # And the ruler sees a model that is surer than it should be.
    overconfident = np.sqrt(np.concatenate(confidence))
    assert calibration(overconfident, np.concatenate(correct))["ece"] > 0.005
