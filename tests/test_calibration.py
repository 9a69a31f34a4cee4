"""Calibration: bins by hand, the edges, properties of any predictions, and its intervals."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve
from sklearn.metrics import brier_score_loss

from nmt_ls.evaluation import resampling
from nmt_ls.evaluation.calibration import calibration, calibration_intervals, merge_reliability

predictions = st.lists(
    st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=1, max_size=60
).map(lambda pairs: tuple(np.array(column) for column in zip(*pairs, strict=True)))


def test_by_hand():
    # Bins of width 1/2: (0.2 wrong, 0.4 right) and (0.9 right, 0.7 right).
    result = calibration(np.array([0.2, 0.4, 0.9, 0.7]), np.array([0, 1, 1, 1]), bins=2)
    assert result["ece"] == pytest.approx(0.5 * abs(0.5 - 0.3) + 0.5 * abs(1.0 - 0.8))
    assert result["mce"] == pytest.approx(0.2)
    assert result["mean_confidence"] == pytest.approx(0.55)
    assert result["accuracy"] == 0.75
    assert result["gap"] == pytest.approx(-0.2)
    assert result["reliability"] == [
        {"low": 0.0, "high": 0.5, "count": 2, "confidence": pytest.approx(0.3), "accuracy": 0.5},
        {"low": 0.5, "high": 1.0, "count": 2, "confidence": pytest.approx(0.8), "accuracy": 1.0},
    ]


def test_opposite_errors_of_one_bin_cancel_but_those_of_two_do_not():
    confidence = np.array([0.55, 0.95])
    assert calibration(confidence, np.array([1, 0]), bins=1)["ece"] == pytest.approx(0.25)
    assert calibration(confidence, np.array([1, 0]), bins=2)["ece"] == pytest.approx(0.25)
    assert calibration(confidence, np.array([1, 0]), bins=10)["ece"] == pytest.approx(
        (0.45 + 0.95) / 2
    )


@pytest.mark.parametrize("bins", [10, 15])
def test_an_edge_belongs_to_the_bin_below(bins):
    edges = np.arange(1, bins + 1) / bins
    counts = [row["count"] for row in calibration(edges, np.ones(bins), bins)["reliability"]]
    assert counts == [1] * bins
    lowest = calibration(np.array([0.0, 1e-9]), np.zeros(2), bins)["reliability"]
    assert lowest[0]["count"] == 2


def test_bins_of_equal_counts_by_hand():
    # Sorted: 0.1 wrong, 0.2 right | 0.6 right, 0.9 wrong. Equal-width halves would be the same;
    # with 0.3 for 0.6 they hold three and one.
    correct = np.array([0, 1, 0, 1])
    result = calibration(np.array([0.9, 0.2, 0.1, 0.6]), correct, bins=2)
    assert result["ece_equal_mass"] == pytest.approx((0.7 + 0.5) / 4)
    assert result["ece_equal_mass"] == pytest.approx(result["ece"])
    result = calibration(np.array([0.9, 0.2, 0.1, 0.3]), correct, bins=2)
    assert result["ece_equal_mass"] == pytest.approx((0.7 + 0.2) / 4)
    assert result["ece"] == pytest.approx((1.4 + 0.9) / 4)


def test_fewer_tokens_than_bins_have_a_bin_each():
    confidence, correct = np.array([0.7, 0.71, 0.72]), np.array([1, 0, 1])
    assert calibration(confidence, correct)["ece_equal_mass"] == pytest.approx(
        (0.3 + 0.71 + 0.28) / 3
    )
    one = calibration(confidence[:1], correct[:1])
    assert one["ece_equal_mass"] == one["ece"] == pytest.approx(0.3)


def test_bins_of_equal_counts_where_they_cannot_be_equal():
    # Five tokens in two bins: three and two.
    result = calibration(np.arange(1, 6) / 10, np.array([1, 1, 1, 0, 0]), bins=2)
    assert result["ece_equal_mass"] == pytest.approx(((3 - 0.6) + 0.9) / 5)


def test_equal_confidences_keep_their_order():
    confidence = np.full(4, 0.5)
    apart = calibration(confidence, np.array([0, 0, 1, 1]), bins=2)
    mixed = calibration(confidence, np.array([0, 1, 0, 1]), bins=2)
    assert apart["ece_equal_mass"] == 0.5
    assert mixed["ece_equal_mass"] == 0
    assert apart["ece"] == mixed["ece"] == 0


def test_brier_by_hand():
    result = calibration(np.array([0.8, 0.6, 0.5]), np.array([True, False, True]))
    assert result["brier"] == pytest.approx((0.04 + 0.36 + 0.25) / 3)
    assert calibration(np.full(7, 0.5), np.array([0, 1, 1, 0, 1, 0, 0]))["brier"] == 0.25


def test_one_that_a_float32_softmax_overshoots():
    result = calibration(np.array([1 + 1e-7]), np.array([True]))
    assert result["reliability"][-1]["count"] == 1


def test_nothing_measured_is_none_not_zero():
    result = calibration(np.array([]), np.array([]))
    names = ("ece", "mce", "mean_confidence", "accuracy", "gap", "ece_equal_mass", "brier")
    assert [result[name] for name in names] == [None] * 7
    assert len(result["reliability"]) == 15
    assert all(row["count"] == 0 and row["accuracy"] is None for row in result["reliability"])


@pytest.mark.parametrize(
    ("confidence", "correct"),
    [([0.5], [1, 0]), ([[0.5]], [[1]]), ([1.5], [1]), ([np.nan], [1]), ([0.5], [2]), ([-0.1], [0])],
)
def test_bad_input_is_refused(confidence, correct):
    with pytest.raises(ValueError, match="."):
        calibration(np.array(confidence), np.array(correct))


def test_calibrated_predictions_have_a_small_error_and_overconfident_ones_their_excess():
    random = np.random.default_rng(0)
    confidence = random.uniform(0.05, 0.8, 100_000)
    correct = random.uniform(size=confidence.size) < confidence
    assert calibration(confidence, correct)["ece"] < 0.01
    over = calibration(confidence + 0.1, correct)
    assert over["gap"] == pytest.approx(0.1, abs=0.01)
    assert over["ece"] == pytest.approx(0.1, abs=0.01)


@settings(max_examples=80, deadline=None)
@given(predictions, st.integers(1, 20), st.randoms(use_true_random=False))
def test_properties(pairs, bins, random):
    confidence, correct = pairs
    result = calibration(confidence, correct, bins)
    assert abs(result["gap"]) <= result["ece"] + 1e-12
    assert result["ece"] <= result["mce"] + 1e-12
    assert result["mce"] <= 1 + 1e-12
    assert abs(result["gap"]) <= result["ece_equal_mass"] + 1e-12
    # The mean of squares is at least the square of the mean of magnitudes, and so of any bins.
    assert result["brier"] >= max(result["ece"], result["ece_equal_mass"]) ** 2 - 1e-12
    assert sum(row["count"] for row in result["reliability"]) == len(confidence)
    order = list(range(len(confidence)))
    random.shuffle(order)
    shuffled = calibration(confidence[order], correct[order], bins)
    assert shuffled["ece"] == pytest.approx(result["ece"])
    assert shuffled["brier"] == pytest.approx(result["brier"])
    if len(set(confidence.tolist())) == len(confidence):
        assert shuffled["ece_equal_mass"] == pytest.approx(result["ece_equal_mass"])
    twice = calibration(np.tile(confidence, 2), np.tile(correct, 2), bins)
    assert twice["ece"] == pytest.approx(result["ece"])


@settings(max_examples=40, deadline=None)
@given(predictions, predictions)
def test_merged_diagrams_are_the_diagram_of_all_tokens(first, second):
    merged = merge_reliability(
        [calibration(*first)["reliability"], calibration(*second)["reliability"]]
    )
    whole = calibration(*(np.concatenate(both) for both in zip(first, second, strict=True)))
    for row, expected in zip(merged, whole["reliability"], strict=True):
        assert row == pytest.approx(expected)


def test_merging_nothing_and_different_bins():
    one = calibration(np.array([0.5]), np.array([1]))["reliability"]
    assert merge_reliability([None, []]) == []
    assert merge_reliability([one, None]) == one
    with pytest.raises(ValueError, match="different numbers"):
        merge_reliability([one, one[:3]])


def made_up(random, sentences: int, spread: float = 0.2):
    """Tokens of sentences that are hard or easy as a whole: confidence, correct, sentence."""
    lengths = random.integers(1, 12, sentences)
    sentence = np.repeat(np.arange(sentences), lengths)
    true = np.clip(random.normal(0.6, spread, sentences), 0, 1)[sentence]
    confidence = random.uniform(0.4, 1, len(sentence))
    return confidence, random.uniform(size=len(sentence)) < true, sentence


def test_intervals_are_those_of_resampled_sentences():
    # The same draws as those of BLEU, the tokens written out and measured anew.
    confidence, correct, sentence = made_up(np.random.default_rng(0), 30)
    drawn = resampling.generator(7, purpose=0).integers(30, size=(60, 30))
    resamples = []
    for row in drawn:
        tokens = np.concatenate([np.flatnonzero(sentence == index) for index in row])
        resamples.append(calibration(confidence[tokens], correct[tokens], bins=6))
    found = calibration_intervals(confidence, correct, sentence, samples=60, seed=7, bins=6)
    assert list(found) == ["ece_ci95", "gap_ci95", "accuracy_ci95"]
    for name in ("ece", "gap", "accuracy"):
        expected = np.quantile([resample[name] for resample in resamples], [0.025, 0.975])
        assert found[f"{name}_ci95"] == pytest.approx(expected.tolist())


def test_intervals_do_not_depend_on_names_of_sentences_order_of_tokens_or_blocks(monkeypatch):
    random = np.random.default_rng(1)
    confidence, correct, sentence = made_up(random, 25)
    expected = calibration_intervals(confidence, correct, sentence, samples=40)
    order = random.permutation(len(sentence))
    renamed = (sentence[order].astype(np.int32) - 3) * 1000
    shuffled = calibration_intervals(confidence[order], correct[order], renamed, samples=40)
    monkeypatch.setattr(resampling, "_BLOCK", 70)  # two resamples at a time
    blocks = calibration_intervals(confidence, correct, sentence, samples=40)
    for name, interval in expected.items():
        assert shuffled[name] == pytest.approx(interval)
        assert blocks[name] == pytest.approx(interval)


def test_intervals_of_equal_sentences_have_no_width():
    found = calibration_intervals(np.full(12, 0.75), np.tile([1, 0], 6), np.repeat(range(6), 2))
    assert found["ece_ci95"] == found["gap_ci95"] == pytest.approx([0.25, 0.25])
    assert found["accuracy_ci95"] == [0.5, 0.5]


@pytest.mark.parametrize("tokens", [0, 1, 5])
def test_no_interval_from_less_than_two_sentences(tokens):
    found = calibration_intervals(np.full(tokens, 0.5), np.ones(tokens), [3] * tokens)
    assert found == {"ece_ci95": None, "gap_ci95": None, "accuracy_ci95": None}


@pytest.mark.parametrize(
    ("sentence", "samples", "message"),
    [
        ([0], 10, "expected sentences"),
        ([0.0, 1.0], 10, "must be integers"),
        ([0, 1], 0, "samples=0"),
    ],
)
def test_bad_sentences_are_refused(sentence, samples, message):
    with pytest.raises(ValueError, match=message):
        calibration_intervals([0.5, 0.5], [1, 0], sentence, samples)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        calibration_intervals([0.5, 1.5], [1, 0], [0, 1])


def test_intervals_hold_the_truth_though_tokens_of_a_sentence_are_alike():
    random = np.random.default_rng(2)
    truth = made_up(random, 100_000, spread=0.4)
    gap, accuracy = truth[0].mean() - truth[1].mean(), truth[1].mean()
    held, held_by_tokens = np.zeros(2), 0
    repeats = 100
    for _ in range(repeats):
        confidence, correct, sentence = made_up(random, 80, spread=0.4)
        found = calibration_intervals(confidence, correct, sentence, samples=200)
        held += [
            found[name][0] <= value <= found[name][1]
            for name, value in (("gap_ci95", gap), ("accuracy_ci95", accuracy))
        ]
        alone = calibration_intervals(confidence, correct, np.arange(len(correct)), samples=200)
        held_by_tokens += alone["accuracy_ci95"][0] <= accuracy <= alone["accuracy_ci95"][1]
    assert np.all(held / repeats > 0.85)
    # Tokens taken one by one pretend to know more than they do.
    assert held_by_tokens / repeats < 0.85


@pytest.mark.parametrize("bins", [2, 10, 15])
def test_bins_and_brier_score_are_those_of_scikit_learn(bins):
    generator = np.random.default_rng(bins)
    confidence = generator.beta(5, 1, size=2000)
    correct = generator.random(2000) < confidence**1.5
    found = calibration(confidence, correct, bins)
    accuracies, confidences = calibration_curve(correct, confidence, n_bins=bins)
    filled = [row for row in found["reliability"] if row["count"]]
    np.testing.assert_allclose([row["accuracy"] for row in filled], accuracies, rtol=1e-12)
    np.testing.assert_allclose([row["confidence"] for row in filled], confidences, rtol=1e-12)
    assert found["brier"] == pytest.approx(brier_score_loss(correct, confidence), rel=1e-12)


def test_ece_and_mce_are_those_of_torchmetrics():
    """Values of torchmetrics 1.9.0 with torch 2.13.0, `binary_calibration_error(confidence,
    correct, n_bins=15, norm="l1")` and "max"."""
    generator = np.random.default_rng(20)
    confidence = generator.beta(5, 1, size=2000)
    correct = generator.random(2000) < confidence**1.5
    found = calibration(confidence, correct, 15)
    assert found["ece"] == pytest.approx(0.06395122844920531, rel=1e-6)
    assert found["mce"] == pytest.approx(0.25989476653234567, rel=1e-6)
