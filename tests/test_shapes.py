"""Few shapes, little padding."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_ls.data.shapes import assign_shapes, choose_shapes

Lengths = list[tuple[int, int]]


def split(pairs: Lengths) -> tuple[np.ndarray, np.ndarray]:
    return tuple(np.array(side, np.int32) for side in zip(*pairs, strict=True))


def padded(pairs: Lengths, shapes: tuple) -> int:
    """Positions that the pairs take, each in its cheapest shape."""
    return sum(min(a + b for a, b in shapes if s <= a and t <= b) for s, t in pairs)


def lengths(longest: int, size: int) -> st.SearchStrategy[Lengths]:
    side = st.integers(1, longest)
    return st.lists(st.tuples(side, side), min_size=1, max_size=size)


@settings(max_examples=60, deadline=None)
@given(pairs=lengths(300, 60), count=st.integers(1, 8))
def test_every_pair_fits(pairs: Lengths, count: int) -> None:
    sides = split(pairs)
    shapes = choose_shapes(*sides, count)
    assert 1 <= len(shapes) <= count
    assert len(set(shapes)) == len(shapes)
    assert shapes[-1][0] >= sides[0].max()
    assert shapes[-1][1] >= sides[1].max()
    assert all(a <= shapes[-1][0] and b <= shapes[-1][1] for a, b in shapes)
    chosen = assign_shapes(*sides, shapes)
    for (s, t), i in zip(pairs, chosen, strict=True):
        assert s <= shapes[i][0] and t <= shapes[i][1]
        assert sum(shapes[i]) == min(a + b for a, b in shapes if s <= a and t <= b)
    assert choose_shapes(*sides, count) == shapes, "deterministic"


@settings(max_examples=80, deadline=None)
@given(pairs=lengths(5, 14), count=st.integers(2, 3))
def test_no_single_move_pads_less(pairs: Lengths, count: int) -> None:
    sides = split(pairs)
    shapes = choose_shapes(*sides, count)
    found, top = padded(pairs, shapes), (int(sides[0].max()), int(sides[1].max()))
    assert shapes[-1] == top
    one = sorted(sum(p) for p in pairs)[len(pairs) * (count - 1) // count]
    assert found <= padded(pairs, (top,)), one
    for i in range(len(shapes) - 1):
        for a in range(1, top[0] + 1):
            assert found <= padded(pairs, (*shapes[:i], (a, shapes[i][1]), *shapes[i + 1 :]))
        for b in range(1, top[1] + 1):
            assert found <= padded(pairs, (*shapes[:i], (shapes[i][0], b), *shapes[i + 1 :]))


def test_close_to_the_best_of_all() -> None:
    """Translations have correlated lengths; there the search finds (nearly) the best shapes."""
    generator = np.random.default_rng(0)
    ratios = []
    for _ in range(20):
        source = generator.integers(1, 8, size=40)
        target = np.clip(source + generator.integers(-1, 2, size=40), 1, 8)
        pairs = list(zip(source.tolist(), target.tolist(), strict=True))
        top = (int(source.max()), int(target.max()))
        grid = list(itertools.product(range(1, top[0] + 1), range(1, top[1] + 1)))
        best = min(
            padded(pairs, (*two, top)) for two in itertools.combinations_with_replacement(grid, 2)
        )
        found = padded(pairs, choose_shapes(source, target, 3))
        ratios.append(best / found)
    assert min(ratios) >= 0.97
    assert np.mean(ratios) >= 0.99


def test_one_length_needs_one_shape() -> None:
    same = np.full(10, 6)
    assert choose_shapes(same, same + 1, 8) == ((6, 7),)


def test_two_clusters_get_their_shapes() -> None:
    source, target = np.array([3] * 9 + [10] * 2), np.array([4] * 9 + [8] * 2)
    assert choose_shapes(source, target, 2) == ((3, 4), (10, 8))


def test_a_pair_too_long_is_named() -> None:
    with pytest.raises(ValueError, match="pair 1 "):
        assign_shapes(np.array([1, 9]), np.array([1, 1]), ((4, 4), (8, 8)))
