"""Which runs go on together after a kill, and from where."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_ls.training.resuming import Place, furthest_together


def together(*places: tuple[list[int], int | None]) -> tuple[list[int], int]:
    numbered = {i: Place(*place) for i, place in enumerate(places)}
    return furthest_together(numbered, checkpoint_every=100, log_every=10)


@pytest.mark.parametrize(
    ("places", "expected"),
    [
        # Killed together while checkpoints were written.
        ([([100, 200], 290), ([100, 200, 300], 300), ([200, 300], 300)], ([0, 1, 2], 200)),
        ([([100], 100), ([], 100), ([100], 90)], ([0, 1, 2], 0)),
        ([([60, 100], 120), ([100], 120)], ([0, 1], 100)),
        # At the same checkpoint nobody loses anything, whoever trained them.
        ([([600], 655), ([600], 640), ([], None)], ([0, 1], 600)),
        ([([], None), ([], 50)], ([0, 1], 0)),
        # Trained apart, and interrupted.
        ([([100, 200], 210), ([100, 200, 300], 300), ([200, 300], 300)], ([1, 2], 300)),
        ([([500, 600, 612], 610), ([500, 600, 655], 650)], ([1], 655)),
        ([([], None), ([8], None)], ([1], 8)),
        ([([], None), ([8], 8)], ([1], 8)),
        ([([], 30), ([50], 50)], ([1], 50)),
        ([([612], 610), ([615], 610)], ([1], 615)),
        # The checkpoints of one are lost.
        ([([100], 450), ([100, 200, 300, 400], 450)], ([1], 400)),
        ([([], 450), ([400], 450), ([300, 400], 450)], ([1, 2], 400)),
    ],
)
def test_who_goes_on_from_where(places, expected) -> None:
    assert together(*places) == expected


runs = st.tuples(
    st.lists(st.integers(1, 12).map(lambda n: n * 50), unique=True, max_size=4).map(sorted),
    st.none() | st.integers(0, 650),
)


@given(st.lists(runs, min_size=1, max_size=5))
def test_no_run_loses_more_than_two_intervals(places) -> None:
    left = dict(enumerate(places))
    done = []
    while left:
        part, step = furthest_together(
            {i: Place(*place) for i, place in left.items()}, checkpoint_every=100, log_every=10
        )
        newest = [max(left[i][0], default=0) for i in part]
        assert max(newest) == max(max(steps, default=0) for steps, _ in left.values())
        assert all(
            step in (0, *left[i][0]) and 0 <= n - step <= 200
            for i, n in zip(part, newest, strict=True)
        )
        if step == 0 < max(newest):
            assert not all(left[i][0] for i in part)
            assert all(left[i][1] is not None for i in part)
        done += part
        for i in part:
            del left[i]
    assert sorted(done) == list(range(len(places)))
