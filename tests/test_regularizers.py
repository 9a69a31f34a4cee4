"""Confidence penalty and generalised entropy: by hand, against smoothing, at the edges."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import assert_close

from nmt_ls.losses import (
    confidence_penalty,
    generalized_entropy,
    label_smoothed_cross_entropy,
    linear_loss,
    token_statistics,
    unigram_prior,
)

GENERATOR = np.random.default_rng(0)
LOGITS = GENERATOR.normal(size=(4, 7)) * 2
LABELS = GENERATOR.integers(7, size=4)
WHERE = np.array([True, True, False, True])


def dense_divergence(u: np.ndarray, p: np.ndarray, alpha: float) -> float:
    """The skew Jensen divergence by its definition: (1−α)G(u) + αG(p) − G(m), G = −entropy."""

    def g(x):
        return np.sum(x[x > 0] * np.log(x[x > 0]))

    mixture = (1 - alpha) * u + alpha * p
    return ((1 - alpha) * g(u) + alpha * g(p) - g(mixture)) / (alpha * (1 - alpha))


@pytest.mark.parametrize("alpha", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("prior", [None, unigram_prior([0, 3, 1, 1, 0, 5, 2])])
def test_by_its_definition(alpha: float, prior: np.ndarray | None) -> None:
    u = np.full(7, 1 / 7) if prior is None else np.asarray(prior, np.float64) / prior.sum()
    with jax.enable_x64(True):
        found = generalized_entropy(LOGITS, LABELS, 0.7, alpha, where=WHERE, prior=prior)
    for i in range(4):
        p = np.exp(LOGITS[i] - np.log(np.exp(LOGITS[i]).sum()))
        expected = -np.log(p[LABELS[i]]) + 0.7 * dense_divergence(u, p, alpha)
        assert abs(float(found[i]) - (expected if WHERE[i] else 0)) < 1e-7  # a float32 prior


def test_the_confidence_penalty_is_nll_less_entropy() -> None:
    found = confidence_penalty(LOGITS.astype(np.float32), LABELS, 0.3, where=WHERE)
    statistics = token_statistics(LOGITS.astype(np.float32), LABELS, WHERE)
    expected = statistics.nll + 0.3 * np.where(WHERE, math.log(7) - statistics.entropy, 0)
    assert_close(found, expected, 1e-6)


def test_alpha_1_is_label_smoothing() -> None:
    """nll + β·KL(u‖p) with β = ε/(1−ε) has the gradient of smoothing, over 1−ε."""
    epsilon, prior = 0.2, unigram_prior([1, 3, 1, 1, 2, 5, 2])
    with jax.enable_x64(True):
        one = jax.grad(
            lambda x: jnp.sum(
                generalized_entropy(x, LABELS, epsilon / (1 - epsilon), 1.0, prior=prior)
            )
        )(LOGITS)
        other = jax.grad(
            lambda x: jnp.sum(label_smoothed_cross_entropy(x, LABELS, epsilon, prior=prior))
        )(LOGITS)
    assert_close((1 - epsilon) * np.asarray(one), other, 1e-12)


def test_between_the_ends() -> None:
    with jax.enable_x64(True):
        near, far = (generalized_entropy(LOGITS, LABELS, 1.0, a) for a in (1e-4, 1 - 1e-4))
        zero, one = (generalized_entropy(LOGITS, LABELS, 1.0, a) for a in (0.0, 1.0))
    np.testing.assert_allclose(near, zero, rtol=2e-3)
    np.testing.assert_allclose(far, one, rtol=2e-3)


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_masked_and_extreme_rows(alpha: float) -> None:
    logits = LOGITS.astype(np.float32)
    logits[2] = np.nan
    logits[3, 1] = -1e4  # a probability of exactly 0
    labels = LABELS.copy()
    labels[2], labels[3] = -100, 0

    def total(x):
        return jnp.sum(generalized_entropy(x, labels, 0.1, alpha, where=WHERE))

    loss, gradient = jax.value_and_grad(total)(logits)
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()
    assert (np.asarray(gradient)[2] == 0).all()
    labels[0] = 7
    losses = generalized_entropy(logits, labels, 0.1, alpha, where=WHERE)
    assert np.isnan(losses[0])
    assert np.isfinite(np.asarray(losses)[1:]).all()


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0])
def test_beta_0_leaves_out_what_is_infinite(alpha: float) -> None:
    def total(x):
        return generalized_entropy(x, 0, 0.0, alpha, prior=[1, 1, 0])

    loss, gradient = jax.value_and_grad(total)(np.array([0.0, -np.inf, 0.0], np.float32))
    assert float(loss) == pytest.approx(math.log(2))
    np.testing.assert_allclose(gradient, [-0.5, 0, 0.5], atol=1e-6)


def test_alpha_out_of_range() -> None:
    with pytest.raises(ValueError, match="alpha=1.5"):
        generalized_entropy(LOGITS, LABELS, 0.1, 1.5)


# --- in chunks -----------------------------------------------------------------------------------


@pytest.mark.parametrize("softcap", [None, 1.0])
def test_chunks_equal_the_whole(softcap: float | None) -> None:
    hidden, embedding = GENERATOR.normal(size=(3, 5, 4)), GENERATOR.normal(size=(7, 4))
    bias, labels = GENERATOR.normal(size=7), GENERATOR.integers(7, size=(3, 5))
    where, weights = GENERATOR.random((3, 5)) < 0.7, GENERATOR.normal(size=(3, 5))
    loss = partial(generalized_entropy, beta=0.5, alpha=0.5)

    def chunked(hidden, embedding, bias):
        found = linear_loss(
            loss, hidden, embedding, labels,
            bias=bias, where=where, logit_softcap=softcap, chunk_size=4,
        )  # fmt: skip
        return jnp.sum(weights * found), found

    def whole(hidden, embedding, bias):
        logits = hidden @ embedding.T + bias
        if softcap is not None:
            logits = softcap * jnp.tanh(logits / softcap)
        found = loss(logits, labels, where=where)
        return jnp.sum(weights * found), found

    with jax.enable_x64(True):
        (_, one), gradients = jax.value_and_grad(chunked, (0, 1, 2), has_aux=True)(
            hidden, embedding, bias
        )
        (_, other), expected = jax.value_and_grad(whole, (0, 1, 2), has_aux=True)(
            hidden, embedding, bias
        )
        assert_close(one, other, 1e-12)
        for a, b in zip(gradients, expected, strict=True):
            assert_close(a, b, 1e-12)
        dirty = np.where(where[..., None], hidden, np.nan)
        again = jax.grad(chunked, (0, 1, 2), has_aux=True)(dirty, embedding, bias)[0]
    for a, b in zip(again, gradients, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"logit_softcap": 0.0}, "logit_softcap=0.0 must be above 0"),
        ({"chunk_size": 0}, "chunk_size=0 must be"),
        ({"chunk_size": -5}, "chunk_size=-5 must be"),
        ({"hidden": np.ones((3, 3))}, r"hidden .*\(3, 3\).*\(5, 4\)"),
        ({"bias": np.ones(4)}, r"bias has shape \(4,\)"),
    ],
)
def test_arguments_that_cannot_be(changed: dict, words: str) -> None:
    arguments = {"hidden": np.ones((3, 4)), "embedding": np.ones((5, 4)), **changed}
    loss = partial(confidence_penalty, labels=np.zeros(3, int), beta=0.1)
    with pytest.raises(ValueError, match=words):
        linear_loss(loss, **arguments)
