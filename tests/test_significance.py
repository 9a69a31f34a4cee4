"""Tests and intervals against hand-computed numbers, sacreBLEU, and known error rates."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nmt_ls.evaluation.significance import (
    hierarchical_bootstrap,
    holm,
    over_seeds,
    paired_bootstrap,
    paired_over_seeds,
    resample,
)
from nmt_ls.evaluation.translation import sentence_statistics

WORDS = [
    "der",
    "die",
    "ein",
    "Hund",
    "Mann",
    "Frau",
    "geht",
    "läuft",
    "im",
    "am",
    "Park",
    "Haus",
    "Kind",
    "spielt",
    "sieht",
]


def made_up(errors: list[float], sentences: int = 120, seed: int = 0):
    """References, and for each error rate a system that gets that share of words wrong."""
    random = np.random.default_rng(seed)
    references = [" ".join(random.choice(WORDS, random.integers(6, 12))) for _ in range(sentences)]
    systems = [
        [
            " ".join(w if random.uniform() > rate else "falsch" for w in line.split())
            for line in references
        ]
        for rate in errors
    ]
    return systems, [[line] for line in references]


def test_over_seeds_by_hand():
    result = over_seeds([1.0, 2.0, 3.0, None])
    # t(0.975; 2) = 4.3027, sd = 1
    assert result["n"] == 3
    assert (result["mean"], result["sd"]) == (2.0, 1.0)
    assert result["ci95"] == pytest.approx([2 - 4.3027 / 3**0.5, 2 + 4.3027 / 3**0.5], abs=1e-4)


def test_what_cannot_be_known_is_none():
    assert over_seeds([5.0]) == {"n": 1, "mean": 5.0, "sd": None, "ci95": None}
    assert over_seeds([]) == {"n": 0, "mean": None, "sd": None, "ci95": None}
    diverged = over_seeds([5.0, float("inf")])
    assert diverged == {"n": 2, "mean": None, "sd": None, "ci95": None}
    assert over_seeds([4.0, 4.0])["ci95"] == [4.0, 4.0]


def test_paired_over_seeds_uses_shared_seeds_only():
    system = {1: 31.0, 2: 32.5, 3: 30.0, 4: 99.0, 5: None}
    baseline = {1: 30.0, 2: 31.0, 3: 29.5, 5: 30.0}
    result = paired_over_seeds(system, baseline)
    assert result["seeds"] == [1, 2, 3]
    assert result["values"] == [1.0, 1.5, 0.5]
    expected = stats.ttest_rel([31.0, 32.5, 30.0], [30.0, 31.0, 29.5])
    assert result["p"] == pytest.approx(expected.pvalue)
    low, high = expected.confidence_interval()
    assert result["ci95"] == pytest.approx([low, high])


def test_one_seed_and_equal_differences_have_no_p():
    one = paired_over_seeds({1: 31.0}, {1: 30.0})
    assert (one["mean"], one["ci95"], one["p"]) == (1.0, None, None)
    assert paired_over_seeds({1: 2.0, 2: 3.0}, {1: 1.0, 2: 2.0})["p"] is None
    assert paired_over_seeds({1: 2.0}, {2: 1.0})["mean"] is None
    # Equal but for rounding: 0.1 + 0.2 and 0.3 differ in the last bit.
    nearly = paired_over_seeds({1: 0.1 + 0.2, 2: 0.3, 3: 0.3}, {1: 0.0, 2: 0.0, 3: 0.0})
    assert nearly["sd"] > 0 and nearly["p"] is None


@given(
    st.lists(st.tuples(st.floats(-50, 50), st.floats(-50, 50)), min_size=2, max_size=8).filter(
        lambda pairs: np.std([a - b for a, b in pairs]) > 1e-3
    )
)
def test_interval_and_p_are_those_of_scipy(pairs):
    system, baseline = zip(*pairs, strict=True)
    found = paired_over_seeds(dict(enumerate(system)), dict(enumerate(baseline)))
    expected = stats.ttest_rel(system, baseline)
    assert found["p"] == pytest.approx(expected.pvalue, rel=1e-9, abs=1e-14)
    low, high = expected.confidence_interval()
    assert found["ci95"] == pytest.approx([low, high], rel=1e-9, abs=1e-9)


def test_holm_is_that_of_statsmodels():
    # statsmodels 0.15.0: multipletests([...], method="holm")[1]
    p_values = [0.0421, 0.0013, 0.31, 0.0089, 0.0112, 0.77, 0.0499]
    expected = [0.1684, 0.0091, 0.62, 0.0534, 0.056, 0.77, 0.1684]
    assert holm(p_values) == pytest.approx(expected)


def test_holm_by_hand():
    # Sorted 0.005·4, 0.01·3, 0.03·2, 0.04·1 → 0.02, 0.03, 0.06, 0.06 (never decreasing).
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.2, None, 0.6]) == pytest.approx([0.4, None, 0.6])
    assert holm([0.7, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_bootstrap_sees_a_real_difference(metric):
    systems, references = made_up([0.1, 0.3])
    better, worse = sentence_statistics(systems, references, metric)
    result = paired_bootstrap(better, worse, metric, samples=300)
    assert result["difference"] > 0
    assert 0 < result["ci95"][0] < result["difference"] < result["ci95"][1]
    assert result["p"] == pytest.approx(1 / 301)
    back = paired_bootstrap(worse, better, metric, samples=300)
    assert back["difference"] == -result["difference"]
    assert back["ci95"] == pytest.approx([-result["ci95"][1], -result["ci95"][0]])
    assert result == paired_bootstrap(better, worse, metric, samples=300)
    assert result["ci95"] != paired_bootstrap(better, worse, metric, samples=300, seed=1)["ci95"]


def test_equal_systems_do_not_differ():
    systems, references = made_up([0.2])
    [counts] = sentence_statistics(systems, references, "bleu")
    result = paired_bootstrap(counts, counts, samples=100)
    assert (result["difference"], result["ci95"], result["p"]) == (0.0, [0.0, 0.0], 1.0)


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_sentence_has_no_interval_and_no_p(seeds):
    systems, references = made_up([0.0, 0.5], sentences=1)
    a, b = sentence_statistics(systems, references, "bleu")
    found = hierarchical_bootstrap([a] * seeds, [b] * seeds, samples=20)
    assert found["difference"] > 0 and found["seeds"] == seeds
    assert (found["ci95"], found["p"]) == (None, None)


def test_resamples_are_centred_on_the_score_with_the_spread_sacrebleu_finds():
    from sacrebleu.metrics import BLEU

    systems, references = made_up([0.2], sentences=200)
    [counts] = sentence_statistics(systems, references, "bleu")
    resampled = resample(counts, "bleu", samples=800)
    # sacreBLEU's half-width of the central 95 %.
    theirs = BLEU().corpus_score(systems[0], [[r[0] for r in references]], n_bootstrap=800)
    low, high = np.quantile(resampled.resamples, [0.025, 0.975])
    assert resampled.score == pytest.approx(theirs.score)
    assert (high - low) / 2 == pytest.approx(theirs._ci, rel=0.12)
    assert resampled.resamples.mean() == pytest.approx(theirs._mean, abs=0.2)


def test_false_alarms_of_the_bootstrap_are_about_five_percent():
    alarms = 0
    for seed in range(60):
        systems, references = made_up([0.2, 0.2], sentences=60, seed=seed)
        counts = sentence_statistics(systems, references, "bleu")
        alarms += paired_bootstrap(*counts, samples=150)["p"] < 0.05
    assert alarms <= 9  # binomial(60, 0.05) exceeds 9 with probability 0.1 %


def test_hierarchical_with_one_seed_is_the_paired_bootstrap():
    systems, references = made_up([0.1, 0.15])
    a, b = sentence_statistics(systems, references, "bleu")
    assert hierarchical_bootstrap([a], [b], samples=100) == paired_bootstrap(a, b, samples=100)


def test_hierarchical_widens_when_seeds_disagree():
    systems, references = made_up([0.10, 0.10, 0.10, 0.20, 0.05, 0.20])
    counts = sentence_statistics(systems, references, "bleu")
    agreeing = hierarchical_bootstrap([counts[0]] * 3, [counts[3]] * 3, samples=300)
    # The mean difference is over 0.10−0.20, 0.10−0.05 and 0.10−0.20: the seeds disagree.
    disagreeing = hierarchical_bootstrap(
        [counts[0], counts[1], counts[2]], [counts[3], counts[4], counts[5]], samples=300
    )
    assert disagreeing["seeds"] == 3
    assert np.ptp(disagreeing["ci95"]) > 2 * np.ptp(agreeing["ci95"])


def test_what_cannot_be_paired_is_refused():
    with pytest.raises(ValueError, match="same sentences"):
        hierarchical_bootstrap([np.ones((3, 10))], [np.ones((4, 10))])
    with pytest.raises(ValueError, match="cannot be paired"):
        hierarchical_bootstrap([np.ones((3, 10))] * 2, [np.ones((3, 10))])
    with pytest.raises(ValueError, match="cannot be paired"):
        hierarchical_bootstrap([], [])
