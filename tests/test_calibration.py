"""Calibration: bins by hand, the edges, and properties that hold for any predictions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_ls.evaluation.calibration import calibration, merge_reliability

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


def test_one_that_a_float32_softmax_overshoots():
    result = calibration(np.array([1 + 1e-7]), np.array([True]))
    assert result["reliability"][-1]["count"] == 1


def test_nothing_measured_is_none_not_zero():
    result = calibration(np.array([]), np.array([]))
    assert [result[name] for name in ("ece", "mce", "mean_confidence", "accuracy", "gap")] == (
        [None] * 5
    )
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
    assert sum(row["count"] for row in result["reliability"]) == len(confidence)
    order = list(range(len(confidence)))
    random.shuffle(order)
    shuffled = calibration(confidence[order], correct[order], bins)
    assert shuffled["ece"] == pytest.approx(result["ece"])
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
