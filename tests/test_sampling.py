"""Sampling: the right frequencies; a draw depends on (seed, sentence, sample) alone."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from nmt_ls.decoding.distributions import Cut
from nmt_ls.decoding.sampling import sample

PAD, BOS, EOS = 0, 1, 2
VOCAB, LENGTH = 5, 3


def tables(seed: int, batch: int) -> np.ndarray:
    """log p(next | previous, position) `[B, T, V, V]`."""
    logits = np.random.default_rng(seed).normal(size=(batch, LENGTH, VOCAB, VOCAB))
    logits[..., [PAD, BOS]] = -np.inf
    return np.array(jax.nn.log_softmax(jnp.asarray(logits, jnp.float32)))


def draw(log_p, samples, sentences=None, seed=1, cut=Cut(), limits=None):  # noqa: B008
    batch = len(log_p)
    limits = np.full(batch, LENGTH, np.int32) if limits is None else np.asarray(limits, np.int32)
    sentences = np.arange(batch) if sentences is None else np.asarray(sentences)

    def step(tokens, position, cache):
        rows = jnp.asarray(log_p)[jnp.arange(batch), position]  # [B, V, V]
        return jnp.take_along_axis(rows, tokens[..., None], axis=1), cache

    @jax.jit
    def call(limits, sentences, seed):
        return sample(
            step, jnp.zeros(batch * samples), limits, sentences, seed,
            samples=samples, length=LENGTH, cut=cut, bos=BOS, eos=EOS, pad=PAD,
        )  # fmt: skip

    return jax.device_get(call(limits, sentences.astype(np.uint32), np.uint32(seed)))


def probabilities(log_p) -> dict[tuple[int, ...], float]:
    """p of every output that ends within LENGTH; forced to end there."""
    found = {}
    for n in range(LENGTH):
        for middle in itertools.product([3, 4], repeat=n):
            total, previous = 0.0, BOS
            for i, token in enumerate((*middle, EOS)):
                if i < LENGTH - 1:  # the last one is forced
                    total += float(log_p[i, previous, token])
                previous = token
            found[(*middle, EOS)] = np.exp(total)
    return found


def test_outputs_come_as_often_as_they_are_probable() -> None:
    log_p = tables(0, 1)
    found = draw(log_p, 20_000)
    expected = probabilities(log_p[0])
    assert abs(sum(expected.values()) - 1) < 1e-5
    drawn = [tuple(t[:n]) for t, n in zip(found.tokens[0], found.lengths[0], strict=True)]
    observed = np.array([drawn.count(output) for output in expected])
    assert observed.sum() == 20_000
    chances = np.array(list(expected.values()))
    assert stats.chisquare(observed, chances / chances.sum() * 20_000).pvalue > 1e-4


def test_log_probabilities_are_of_what_was_drawn() -> None:
    log_p = tables(1, 3)
    found = draw(log_p, 50, cut=Cut(top_k=2))
    for row, k in itertools.product(range(3), range(50)):
        n, previous, total = found.lengths[row, k], BOS, 0.0
        for i, token in enumerate(found.tokens[row, k, :n]):
            total += log_p[row, i, previous, token]
            assert abs(found.paths[row, k, i] - total) < 1e-5
            previous = token
        assert previous == EOS
        assert (found.tokens[row, k, n:] == PAD).all()
        assert abs(found.log_probs[row, k] - total) < 1e-5


def test_a_draw_depends_on_seed_sentence_and_sample_alone() -> None:
    log_p = tables(2, 4)
    found = draw(log_p, 8)
    np.testing.assert_array_equal(found.tokens, draw(log_p, 8).tokens)
    alone = draw(log_p[2:3], 8, sentences=[2])
    np.testing.assert_array_equal(found.tokens[2], alone.tokens[0])
    np.testing.assert_array_equal(found.tokens[:, :3], draw(log_p, 3).tokens)
    assert (found.tokens != draw(log_p, 8, seed=2).tokens).any()
    same = draw(np.repeat(log_p[:1], 4, axis=0), 8)
    assert (same.tokens[0] != same.tokens[1]).any(), "sentences draw apart"


def test_limits_and_cuts() -> None:
    log_p = tables(3, 3)
    log_p[..., EOS] = -30.0
    found = draw(log_p, 20, limits=[1, 2, 3])
    assert found.lengths.tolist() == [[1] * 20, [2] * 20, [3] * 20]
    greedy = draw(log_p, 5, cut=Cut(top_k=1))
    assert (greedy.tokens == greedy.tokens[:, :1]).all()
