"""Search with refilled rows against each sentence's own search, on made-up distributions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_beam import BOS, EOS, PAD, SECOND_ORDER, VOCAB

from nmt_ls.decoding.beam import Asked, BeamSearch, LengthPenalty, beam_search
from nmt_ls.decoding.refill import refilled_search
from nmt_ls.decoding.rows import dealt

BEAM, LENGTH, SENTENCES = 3, 12, 24
STEPS: list[None] = []


def tables() -> np.ndarray:
    """log p(next | previous, position) `[N, T, V, V]`; sentences end sooner or later."""
    random = np.random.default_rng(5)
    logits = random.normal(size=(SENTENCES, LENGTH, VOCAB, VOCAB))
    logits[..., EOS] += random.uniform(-4, 3, size=(SENTENCES, 1, 1))
    return np.array(jax.nn.log_softmax(jnp.asarray(logits, jnp.float32)))


def step(tokens, position, cache):
    """As `test_beam`'s, with the tables as memories."""
    jax.debug.callback(lambda: STEPS.append(None))
    log_p, before = cache
    before = jnp.where(position[:, None] == 0, BOS, before.reshape(tokens.shape))
    rows = log_p[jnp.arange(len(tokens)), position]  # [B, V, V]
    out = jnp.take_along_axis(rows, tokens[..., None], axis=1) + SECOND_ORDER * before[..., None]
    return out, (log_p, tokens.reshape(-1))


def reorder(cache, parents):
    log_p, before = cache
    moved = jnp.take_along_axis(before.reshape(parents.shape), parents, axis=1)
    return log_p, moved.reshape(-1)


def asked(random: np.random.Generator) -> Asked:
    prefix = np.where(random.random((SENTENCES, 2)) < 0.3, random.integers(3, VOCAB), PAD)
    prefix[:, 1] = np.where(prefix[:, 0] == PAD, PAD, prefix[:, 1])
    limits = random.integers(4, LENGTH + 1, SENTENCES)
    shortest = random.integers(1, 4, SENTENCES)
    return Asked(*(x.astype(np.int32) for x in (limits, shortest, prefix)))


@pytest.mark.parametrize(("rows", "count"), [(1, 5), (4, SENTENCES), (8, 21), (12, 2), (8, 0)])
@pytest.mark.parametrize("stopping", ["bound", "first_k"])
def test_nobody_sees_who_is_searched_beside(rows: int, count: int, stopping: str) -> None:
    log_p, wanted = tables(), asked(np.random.default_rng(6))
    options = {
        "beam": BEAM, "length": LENGTH, "penalty": LengthPenalty(), "bos": BOS, "eos": EOS,
        "pad": PAD, "reorder": reorder, "stopping": stopping,
    }  # fmt: skip

    def past(number: int) -> jax.Array:
        return jnp.full(number * BEAM, -1, jnp.int32)

    @jax.jit
    def one(log_p, wanted):
        return beam_search(step, (log_p, past(1)), wanted, **options)

    @jax.jit
    def all_of_them(log_p, wanted, count):
        def encode(start):
            return jax.lax.dynamic_slice_in_dim(log_p, start, rows)

        search = BeamSearch(step, **options)
        return refilled_search(search, past(rows), encode, wanted, count, rows)

    alone, steps = [], []
    for i in range(count):
        STEPS.clear()
        alone.append(one(log_p[i : i + 1], jax.tree.map(lambda x, i=i: x[i : i + 1], wanted)))
        jax.effects_barrier()
        steps.append(len(STEPS))
    STEPS.clear()
    found = jax.device_get(all_of_them(log_p, wanted, np.int32(count)))
    jax.effects_barrier()
    for i, expected in enumerate(alone):
        for name in expected._fields:
            np.testing.assert_array_equal(getattr(found, name)[i], getattr(expected, name)[0])
    assert np.isneginf(found.scores[count:]).all()

    # As many steps as when each row takes the next sentence at once, within an eighth of the rows.
    batches = sum(max(steps[i : i + rows]) for i in range(0, count, rows))
    if rows == 1:
        assert len(STEPS) == sum(steps)
    elif count > 2 * rows:
        assert sum(steps) / rows <= len(STEPS) < batches


def test_sentences_are_dealt_out_to_devices() -> None:
    assert dealt(5, 12, 3).tolist() == [0, 4, 8, 1, 5]
    assert sorted(dealt(12, 12, 3)) == list(range(12))
