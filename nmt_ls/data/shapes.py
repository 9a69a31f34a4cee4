"""Which few (source length, target length) shapes batches have: as little padding as possible."""

import numpy as np
from jaxtyping import Float, Int

Shape = tuple[int, int]
"""(source positions, target positions) of one row of a batch."""


def choose_shapes(
    source_lengths: Int[np.ndarray, "N"], target_lengths: Int[np.ndarray, "N"], count: int
) -> tuple[Shape, ...]:
    """At most `count` shapes such that pairs, each in the smallest that holds it, pad little.

    Minimises the padded positions (source + target) by coordinate descent from quantiles of the
    summed length. Deterministic; depends on the lengths alone. The last shape holds every pair.
    Lengths are taken in steps of 1/128 of the longest, so that the search costs a second at most.
    """
    longest = int(max(source_lengths.max(), target_lengths.max()))
    unit = -(-longest // 128)
    s = -(-source_lengths // unit)
    t = -(-target_lengths // unit)
    top = (int(s.max()), int(t.max()))
    pairs = np.zeros((top[0] + 1, top[1] + 1))
    np.add.at(pairs, (s, t), 1)

    order = np.argsort(s + t, kind="stable")
    shapes = []
    for i in range(1, count):
        group = order[: len(order) * i // count]
        shapes.append([int(s[group].max()), int(t[group].max())] if len(group) else list(top))
    shapes.append(list(top))
    best = _padded_positions(pairs, shapes)
    improved = True
    while improved:
        improved = False
        for i in range(count - 1):
            for side in (0, 1):
                candidates = _costs_along(pairs, shapes, i, side)
                choice = int(np.argmin(candidates))
                if candidates[choice] < best - 1e-9:
                    shapes[i][side], best, improved = choice, float(candidates[choice]), True
    used = sorted({(a, b) for a, b in shapes if a and b}, key=lambda x: (x[0] + x[1], x))
    return tuple((a * unit, b * unit) for a, b in used)


def _cost_grid(pairs, shapes, left_out: int | None = None) -> Float[np.ndarray, "S T"]:
    """Positions that a pair of each (source, target) length takes in its smallest shape."""
    grid = np.full(pairs.shape, np.inf)
    for i, (a, b) in enumerate(shapes):
        if i != left_out:
            corner = grid[: a + 1, : b + 1]
            np.minimum(corner, a + b, out=corner)
    return grid


def _padded_positions(pairs, shapes) -> float:
    return float(np.sum(pairs * _cost_grid(pairs, shapes)))


def _costs_along(pairs, shapes, moved: int, side: int) -> Float[np.ndarray, "V"]:
    """Total positions for every value that one length of one shape may take."""
    grid = _cost_grid(pairs, shapes, left_out=moved)
    other = shapes[moved][1 - side]
    if side == 1:
        pairs, grid = pairs.T, grid.T
    base = float(np.sum(pairs * grid))
    narrow_pairs, narrow_grid = pairs[:, : other + 1], grid[:, : other + 1]
    costs = np.empty(pairs.shape[0])
    for value in range(pairs.shape[0]):
        p, g = narrow_pairs[: value + 1], narrow_grid[: value + 1]
        costs[value] = base - float(np.sum(p * np.maximum(g - (value + other), 0)))
    return costs


def assign_shapes(
    source_lengths: Int[np.ndarray, "N"],
    target_lengths: Int[np.ndarray, "N"],
    shapes: tuple[Shape, ...],
) -> Int[np.ndarray, "N"]:
    """Index of the smallest shape (fewest positions, then first) that holds each pair.

    Raises:
      ValueError: a pair that no shape holds.
    """
    chosen = np.full(len(source_lengths), -1, np.int8)
    for i in sorted(range(len(shapes)), key=lambda i: (sum(shapes[i]), i), reverse=True):
        holds = (source_lengths <= shapes[i][0]) & (target_lengths <= shapes[i][1])
        chosen[holds] = i
    if (chosen < 0).any():
        raise ValueError(f"pair {int(np.argmin(chosen))} is longer than every shape {shapes}")
    return chosen
