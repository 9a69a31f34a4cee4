"""What is decided, and what is not: cases by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nmt_ls.evaluation.significance import ALPHA, holm, paired_over_seeds
from nmt_ls.study.decision import corrected, decide, lowest


def difference(*values: float) -> dict:
    return paired_over_seeds(dict(enumerate(values)), dict.fromkeys(range(len(values)), 0.0))


def test_verdicts_by_hand():
    # t-tests of [0.5, 0.6, 0.7] and its negative: t = ±10.39, p = 0.0091; of [−1, 0, 1.2]: 0.92.
    decision = decide(
        {
            "0.1": difference(0.5, 0.6, 0.7),
            "0.2": difference(-0.5, -0.6, -0.7),
            "0.3": difference(-1.0, 0.0, 1.2),
            "0.4": difference(5.0, 5.01),
            "0.5": difference(1.0, 1.0, 1.0),
            "0.6": difference(),
        }
    )
    assert decision["verdicts"] == {
        "0.1": "higher",
        "0.2": "lower",
        "0.3": "no clear difference",
        "0.4": "too few seeds",
        "0.5": "no spread",
        "0.6": "too few seeds",
    }
    assert decision["differs"] == ["0.1", "0.2"]
    assert (decision["alpha"], decision["seeds_needed"]) == (0.05, 3)


def test_holm_takes_away_what_chance_gives():
    # t = 0.3 / (0.1/√3) = 5.196, p = 0.0351: alone below 0.05, among three contrasts not.
    assert difference(0.2, 0.3, 0.4)["p"] == pytest.approx(
        stats.ttest_1samp([0.2, 0.3, 0.4], 0).pvalue
    )
    assert corrected({"a": difference(0.2, 0.3, 0.4)})["a"] == pytest.approx(0.0351, abs=1e-4)
    many = {"a": difference(0.2, 0.3, 0.4), "b": difference(1, -1, 0.1), "c": difference(1, -2, 3)}
    assert corrected(many)["a"] == pytest.approx(3 * 0.0351, abs=3e-4)
    assert decide({"a": difference(0.2, 0.3, 0.4)})["differs"] == ["a"]
    assert decide(many)["differs"] == []


def test_two_seeds_have_a_p_but_no_correction_and_are_no_test():
    found = corrected({"a": difference(1.0, 1.1), "b": difference(0.2, 0.3, 0.4)})
    assert found["a"] is None
    assert found["b"] == pytest.approx(0.0351, abs=1e-4)


@given(st.lists(st.lists(st.floats(-3, 3), min_size=3, max_size=5), min_size=1, max_size=6))
def test_decided_is_what_holm_rejects(rows):
    differences = {str(i): difference(*row) for i, row in enumerate(rows)}
    p_values = holm([d["p"] for d in differences.values()])
    rejected = [str(i) for i, p in enumerate(p_values) if p is not None and p < ALPHA]
    assert decide(differences)["differs"] == rejected


def by_seed(*values: float | None) -> dict:
    return dict(enumerate(values))


def test_lowest_is_decided_when_it_is_told_from_every_other():
    clear = {
        "0.0": by_seed(0.060, 0.062, 0.064),
        "0.1": by_seed(0.020, 0.021, 0.0225),
        "0.3": by_seed(0.150, 0.153, 0.155),
    }
    found = lowest(clear)
    assert (found["smoothing"], found["decided"], found["close"]) == ("0.1", True, [])
    assert found["mean"] == pytest.approx(0.0635 / 3) and found["seeds"] == 3
    # Its neighbour is lower with one seed of the three.
    close = lowest(clear | {"0.05": by_seed(0.022, 0.019, 0.026)})
    assert (close["smoothing"], close["decided"], close["close"]) == ("0.1", False, ["0.05"])


def test_lowest_is_not_decided_by_two_seeds_and_needs_two_smoothings():
    two = {"0.0": by_seed(0.06, 0.061), "0.1": by_seed(0.02, 0.0201)}
    assert lowest(two)["decided"] is False and lowest(two)["seeds"] == 2
    assert lowest({"0.0": by_seed(0.06, 0.061)}) is None
    assert lowest({"0.0": by_seed(None, None), "0.1": by_seed(0.02, 0.03)}) is None
    other_seeds = lowest({"0.0": {1: 0.06, 2: 0.07}, "0.1": {3: 0.02}})
    assert (other_seeds["decided"], other_seeds["seeds"]) == (False, 0)
