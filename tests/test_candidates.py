"""The best continuations, beside a plain sort of everything."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_ls.decoding.candidates import Unnormalised, best_candidates

PAD, BOS, EOS = 0, 2, 3


def plain(scores, log_p, count, no_eos, only):
    """(score, parent, token) of each sentence by sorting all; ties in the order of (k, token)."""
    batch, beam, vocab = log_p.shape
    found = []
    for b in range(batch):
        ranked = []
        for k in range(beam):
            for v in range(vocab):
                banned = v in (PAD, BOS) or (no_eos[b] and v == EOS)
                if only[b] >= 0:
                    banned = v != only[b]
                if not banned:
                    ranked.append((np.float32(scores[b, k] + log_p[b, k, v]), k, v))
        ranked.sort(key=lambda one: (-one[0], one[1], one[2]))
        found.append(ranked[:count])
    return found


def of(scores, following, count, no_eos, only):
    find = jax.jit(
        lambda s, f, n, o: best_candidates(s, f, count, never=(PAD, BOS), eos=EOS, no_eos=n, only=o)
    )
    return jax.device_get(find(scores, following, no_eos, only))


@pytest.mark.parametrize("vocab", [5, 64, 131])
def test_candidates_are_those_of_a_plain_sort(vocab: int) -> None:
    random = np.random.default_rng(vocab)
    batch, beam, count = 6, 3, 6
    scores = random.normal(size=(batch, beam)).astype(np.float32)
    scores[0, 1:] = -np.inf  # as at the start
    # Few different values: ties everywhere.
    log_p = random.integers(-6, 0, size=(batch, beam, vocab)).astype(np.float32)
    no_eos = np.arange(batch) % 2 == 0
    only = np.array([-1, -1, EOS, 4, -1, -1], np.int32)
    found = of(scores, log_p, count, no_eos, only)
    assert found.scores.shape == found.parents.shape == found.tokens.shape == (batch, count)
    assert found.tokens.min() >= 0
    assert found.tokens.max() < vocab
    for b, expected in enumerate(plain(scores, log_p, count, no_eos, only)):
        finite = [one for one in expected if np.isfinite(one[0])]
        n = len(finite)
        assert [*zip(found.parents[b, :n], found.tokens[b, :n], strict=True)] == [
            one[1:] for one in finite
        ]
        np.testing.assert_array_equal(found.scores[b, :n], [one[0] for one in finite])
        assert (found.scores[b, n:] == -np.inf).all()


@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([0.1, 3.0, 60.0]))
@settings(max_examples=30, deadline=None)
def test_logits_give_what_their_log_probabilities_give(seed: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    logits = (random.normal(size=(4, 3, 131)) * scale).astype(np.float32)
    scores = random.normal(size=(4, 3)).astype(np.float32)
    rest = (6, np.zeros(4, bool), np.array([-1, 7, -1, EOS], np.int32))
    from_logits = of(scores, Unnormalised(jnp.asarray(logits)), *rest)
    exact = logits.astype(float)
    exact -= exact.max(axis=-1, keepdims=True)
    exact -= np.log(np.exp(exact).sum(axis=-1, keepdims=True))
    for b, expected in enumerate(plain(scores, exact, *rest)):
        n = len(expected)
        np.testing.assert_allclose(
            from_logits.scores[b, :n], [one[0] for one in expected], rtol=2e-6, atol=2e-6 * scale
        )


def test_more_candidates_than_there_are() -> None:
    log_p = np.log(np.full((1, 2, 4), 0.25, np.float32))
    found = of(np.zeros((1, 2), np.float32), log_p, 12, np.zeros(1, bool), np.array([-1]))
    # Tokens 1 and 3 of both hypotheses.
    assert [*zip(found.parents[0, :4], found.tokens[0, :4], strict=True)] == [
        (0, 1), (0, 3), (1, 1), (1, 3),
    ]  # fmt: skip
    assert (found.scores[0, 4:] == -np.inf).all()
    assert set(found.tokens[0].tolist()) <= {0, 1, 2, 3}
