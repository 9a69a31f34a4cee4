"""The decoder's past: shared slots, blocks, reordering, beside attention over moved rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import assert_close

from nmt_ls.model.cache import (
    attend_past,
    attend_source,
    empty_cache,
    readable,
    reordered,
    source_slots,
    with_own_slots,
)

BATCH, BEAM, HEADS, CHANNELS = 2, 3, 2, 4


def softmax(x: np.ndarray) -> np.ndarray:
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(("backend", "blocks"), [("cpu", 2), ("gpu", 1)])
@pytest.mark.parametrize("shared", [1, BEAM])
def test_each_hypothesis_attends_to_its_own_past(shared: int, backend, blocks, monkeypatch) -> None:
    """42 positions; hypotheses are dropped and doubled at each."""
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    length, random = 42, np.random.default_rng(0)
    cache = empty_cache(
        BATCH * BEAM, length, shared=shared, layers=1, heads=HEADS, channels=CHANNELS,
        dtype=jnp.float32,
    )  # fmt: skip
    assert len(cache.layers[0]) == blocks  # 16 and 26: no block is small; or 48

    @jax.jit
    def step(cache, position, q, k, v, parents):
        position = jnp.full(len(cache.ancestors), position)
        cache = with_own_slots(cache, position)
        reads = readable(cache, position)
        rows = [x.reshape(*reads.shape[:2], HEADS, CHANNELS) for x in (q, k, v)]
        y, slots = attend_past(*rows, cache.layers[0], reads, position)
        return y.reshape(q.shape), reordered(cache._replace(layers=[slots]), parents)

    past: list[list[list]] = [[[] for _ in range(BEAM)] for _ in range(BATCH)]
    for position in range(length):
        q, k, v = random.normal(size=(3, BATCH, BEAM, HEADS, CHANNELS)).astype(np.float32)
        parents = random.integers(BEAM, size=(BATCH, BEAM)).astype(np.int32)
        y, cache = step(cache, position, q, k, v, parents)
        for b in range(BATCH):
            for g in range(BEAM):
                past[b][g] = [*past[b][g], (k[b, g], v[b, g])]
                keys, values = (np.stack(x) for x in zip(*past[b][g], strict=True))
                weights = softmax(np.einsum("hc,thc->ht", q[b, g], keys) / CHANNELS**0.5)
                assert_close(y[b, g], np.einsum("ht,thc->hc", weights, values), 1e-5)
            past[b] = [past[b][parents[b, g]] for g in range(BEAM)]


@pytest.mark.parametrize(
    ("backend", "length", "sizes"),
    [
        ("cpu", 10, [10]),
        ("cpu", 84, [16, 16, 32, 20]),
        ("cpu", 70, [16, 16, 38]),
        ("gpu", 84, [88]),
        ("gpu", 300, [64, 64, 176]),
    ],
)
def test_blocks_double_the_whole(monkeypatch, backend: str, length: int, sizes: list[int]) -> None:
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    cache = empty_cache(
        6, length, shared=BEAM, layers=1, heads=HEADS, channels=CHANNELS, dtype=jnp.float32
    )
    assert [values.shape[2] // BEAM for _, values in cache.layers[0]] == sizes


def test_how_long_other_rows_are_changes_no_bit() -> None:
    """The second row reads one block of three; the first reads one, two or three."""
    length, random = 52, np.random.default_rng(2)
    empty = empty_cache(
        2 * BEAM, length, shared=BEAM, layers=1, heads=HEADS, channels=CHANNELS, dtype=jnp.float32
    )

    def normal(shape) -> jax.Array:
        return jnp.asarray(random.normal(size=shape), jnp.float32)

    slots = jax.tree.map(lambda x: normal(x.shape), empty.layers[0])
    assert len(slots) == 3
    q, k, v = normal((3, 2, BEAM, HEADS, CHANNELS))

    @jax.jit
    def attend(position):
        cache = with_own_slots(empty, position)
        return attend_past(q, k, v, slots, readable(cache, position), position)

    short = attend(np.array([3, 5]))
    for position in (20, 51):
        found = attend(np.array([position, 5]))
        np.testing.assert_array_equal(found[0][1], short[0][1])
        for now, before in zip(jax.tree.leaves(found[1]), jax.tree.leaves(short[1]), strict=True):
            np.testing.assert_array_equal(now[1], before[1])
        assert (found[0][0] != short[0][0]).any()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sentence_that_was_nan_leaves_nothing_to_the_next(bad: float) -> None:
    length, random = 20, np.random.default_rng(4)
    cache = empty_cache(
        BATCH * BEAM, length, shared=BEAM, layers=1, heads=HEADS, channels=CHANNELS,
        dtype=jnp.float32,
    )  # fmt: skip

    @jax.jit
    def step(cache, position, q, k, v):
        cache = with_own_slots(cache, position)
        y, slots = attend_past(q, k, v, cache.layers[0], readable(cache, position), position)
        return y, cache._replace(layers=[slots])

    q, k, v = random.normal(size=(3, BATCH, BEAM, HEADS, CHANNELS)).astype(np.float32)
    broken_k, broken_v = k.copy(), v.copy()
    broken_k[0], broken_v[0] = bad, bad
    used = cache
    for position in range(5):
        y, used = step(used, np.full(BATCH, position), q, broken_k, broken_v)
        assert not np.isfinite(y[0]).any(), "its own sentence is not helped"
        assert np.isfinite(y[1]).all()
    # The first row begins anew.
    again, _ = step(used, np.array([0, 0]), q, k, v)
    np.testing.assert_array_equal(again, step(cache, np.array([0, 0]), q, k, v)[0])


def test_hypotheses_share_their_source() -> None:
    random = np.random.default_rng(1)
    q = random.normal(size=(BATCH, BEAM, HEADS, CHANNELS)).astype(np.float32)
    k, v = random.normal(size=(2, BATCH, 6, HEADS, CHANNELS)).astype(np.float32)
    lengths = np.array([6, 2], np.int32)
    y = attend_source(q, source_slots(k, v), lengths)
    for b, n in enumerate(lengths):
        logits = np.einsum("khc,shc->khs", q[b], k[b, :n]) / CHANNELS**0.5
        assert_close(y[b], np.einsum("khs,shc->khc", softmax(logits), v[b, :n]), 1e-5)
