"""Selective prediction: curves by hand, ties against all their orders, and properties."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_ls.evaluation.risk_coverage import risk_coverage

# Few different confidences, so that many are equal.
pairs = st.lists(
    st.tuples(st.sampled_from([-3.0, -1.0, 0.5, 2.0]), st.floats(0, 10)), min_size=1, max_size=30
).map(lambda rows: tuple(np.array(column) for column in zip(*rows, strict=True)))


def test_by_hand():
    # Surest first: risks 0, 1, 0, 1. Kept one by one: 0, 1/2, 1/3, 1/2.
    result = risk_coverage(np.array([0.2, 0.9, 0.8, 0.4]), np.array([1, 0, 1, 0]))
    aurc = (0 + 1 / 2 + 1 / 3 + 1 / 2) / 4
    assert result["aurc"] == pytest.approx(aurc)
    # The best order is 0, 0, 1, 1: 0, 0, 1/3, 1/2.
    assert result["excess_aurc"] == pytest.approx(aurc - (1 / 3 + 1 / 2) / 4)
    assert result["points"] == [
        [0.25, 0.0],
        [0.5, 0.5],
        [0.75, pytest.approx(1 / 3)],
        [1.0, 0.5],
    ]


def test_risks_that_are_no_shares():
    result = risk_coverage(np.array([-1.0, -2.0, -math.inf]), np.array([30.0, 10.0, 80.0]))
    assert result["aurc"] == pytest.approx((30 + 20 + 40) / 3)
    assert result["excess_aurc"] == pytest.approx((30 + 20 + 40) / 3 - (10 + 20 + 40) / 3)


def test_equal_confidences_have_the_mean_of_all_their_orders():
    confidence, risk = [3, 2, 2, 2, 1, 1], [0.5, 0.0, 1.0, 4.0, 2.0, 3.0]
    areas, curves = [], []
    for middle in itertools.permutations([1, 2, 3]):
        for last in itertools.permutations([4, 5]):
            order = [0, *middle, *last]
            # Other confidences that put them in this order, without ties.
            result = risk_coverage(np.arange(6, 0, -1), np.array(risk)[order])
            areas.append(result["aurc"])
            curves.append(result["points"])
    tied = risk_coverage(np.array(confidence), np.array(risk))
    assert tied["aurc"] == pytest.approx(np.mean(areas))
    assert np.array(tied["points"]) == pytest.approx(np.mean(curves, axis=0))


def test_all_equal_and_one():
    result = risk_coverage(np.full(3, 0.7), np.array([0.0, 0.0, 3.0]))
    assert result["points"] == [[pytest.approx(1 / 3), 1.0], [pytest.approx(2 / 3), 1.0], [1, 1]]
    assert result["aurc"] == pytest.approx(1.0)
    assert result["excess_aurc"] == pytest.approx(1 - (0 + 0 + 1) / 3)
    one = risk_coverage(np.array([0.3]), np.array([0.4]))
    assert one == {"aurc": 0.4, "excess_aurc": 0.0, "points": [[1.0, 0.4]]}


def test_nothing_measured_is_none_not_zero():
    assert risk_coverage(np.array([]), np.array([])) == {
        "aurc": None,
        "excess_aurc": None,
        "points": [],
    }


@pytest.mark.parametrize("sentences", [49, 50, 51, 120, 1000])
def test_at_most_fifty_points_evenly_spread(sentences):
    random = np.random.default_rng(sentences)
    risk = random.uniform(size=sentences)
    points = np.array(risk_coverage(random.normal(size=sentences), risk)["points"])
    assert len(points) == min(50, sentences)
    assert points[-1] == pytest.approx([1, risk.mean()])
    steps = np.diff(points[:, 0], prepend=0.0) * sentences
    assert steps.max() - steps.min() < 1 + 1e-9
    assert steps.min() > 1 - 1e-9


@pytest.mark.parametrize(
    ("confidence", "risk"),
    [([1], [1, 2]), ([[1]], [[1]]), ([np.nan], [1]), ([1], [np.nan]), ([1], [np.inf])],
)
def test_bad_input_is_refused(confidence, risk):
    with pytest.raises(ValueError, match="."):
        risk_coverage(np.array(confidence), np.array(risk))


@settings(max_examples=100, deadline=None)
@given(pairs, st.randoms(use_true_random=False))
def test_properties(both, random):
    confidence, risk = both
    result = risk_coverage(confidence, risk)
    assert result["excess_aurc"] >= 0
    assert risk.min() - 1e-9 <= result["aurc"] <= risk.max() + 1e-9
    assert result["points"][-1] == pytest.approx([1, risk.mean()])
    order = list(range(len(risk)))
    random.shuffle(order)
    shuffled = risk_coverage(confidence[order], risk[order])
    assert shuffled["aurc"] == pytest.approx(result["aurc"])
    # Only the order of confidences matters, and risk may be counted in any unit.
    rescaled = risk_coverage(np.exp(confidence), 100 * risk)
    assert rescaled["aurc"] == pytest.approx(100 * result["aurc"])
    best, worst = risk_coverage(-risk, risk), risk_coverage(risk, risk)
    assert best["excess_aurc"] == pytest.approx(0, abs=1e-9)
    assert best["aurc"] - 1e-9 <= result["aurc"] <= worst["aurc"] + 1e-9
    assert result["excess_aurc"] == pytest.approx(result["aurc"] - best["aurc"], abs=1e-9)
