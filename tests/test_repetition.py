"""N-grams that search may not repeat: against a plain loop."""

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_ls.decoding.repetition import repeats

LENGTH, VOCAB = 9, 4
compiled = jax.jit(repeats, static_argnums=(2, 3))


def by_hand(tokens, size):
    return {
        tokens[i + size - 1]
        for i in range(len(tokens) - size + 1)
        if tokens[i : i + size - 1] == tokens[len(tokens) - size + 1 :]
    }


@given(
    st.lists(
        st.lists(st.integers(0, VOCAB - 1), min_size=LENGTH, max_size=LENGTH),
        min_size=6,
        max_size=6,
    ),
    st.integers(0, LENGTH),
    st.integers(1, 4),
)
@settings(max_examples=60, deadline=None)
def test_against_a_plain_loop(rows, position, size):
    tokens = np.array(rows).reshape(2, 3, LENGTH)
    found = np.asarray(compiled(jnp.asarray(tokens), jnp.full(2, position), size, VOCAB))
    for one, row in zip(found.reshape(6, VOCAB), rows, strict=True):
        assert set(np.flatnonzero(one)) == by_hand(row[:position], size)


def test_an_n_gram_longer_than_any_output_forbids_nothing():
    assert not repeats(jnp.zeros((1, 2, 3), int), jnp.full(1, 3), 4, VOCAB).any()
