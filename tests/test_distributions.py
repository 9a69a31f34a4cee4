"""Un-mixing, temperature and cuts by hand; exact mixtures taken apart again."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_ls.config import DecodingConfig, LossConfig
from nmt_ls.decoding.distributions import Cut, unmixed, with_temperature
from nmt_ls.decoding.mixture import exact_mass, mass_of
from nmt_ls.errors import UserError
from nmt_ls.losses import convention, label_smoothed_cross_entropy

VOCAB, PAD = 9, 0


def log(p):
    with np.errstate(divide="ignore"):
        return jnp.log(jnp.asarray(p, jnp.float32))


def test_unmixing_by_hand() -> None:
    q = [0.5, 0.3, 0.1, 0.1]
    # 0.1 off each: 0.4, 0.2, 0, 0 of 0.6
    np.testing.assert_allclose(np.exp(unmixed(log(q), 0.1)), [2 / 3, 1 / 3, 0, 0], atol=1e-6)
    # The likelihood's floor is a hundredth of q: 0.4, 0.2, 0.001, 0.001.
    kept = np.array([0.4, 0.2, 0.001, 0.001])
    found = np.exp(unmixed(log(q), 0.1, purpose="likelihood"))
    np.testing.assert_allclose(found, kept / kept.sum(), atol=1e-6)
    vector = np.exp(unmixed(log(q), jnp.array([0.5, 0, 0, 0.05])))
    np.testing.assert_allclose(vector, np.array([0, 0.3, 0.1, 0.05]) / 0.45, atol=1e-6)


def test_unmixing_at_the_edges() -> None:
    q = log([0.5, 0.5, 0.0])
    np.testing.assert_array_equal(unmixed(q, 0.0), q)
    assert np.isneginf(unmixed(q, 0.1)[2])
    # 1/q is beyond float32, but where there is no share nothing is taken off.
    tiny = unmixed(jnp.array([-0.69, -0.69, -100.0]), jnp.array([0.1, 0, 0]))
    np.testing.assert_allclose(tiny[2] - tiny[1], -99.31, rtol=1e-6)
    # Taking everything off would leave nothing: q stays.
    np.testing.assert_allclose(np.exp(unmixed(q, 0.6)), [0.5, 0.5, 0], atol=1e-6)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_an_exact_mixture_is_inverted(data: st.DataObject) -> None:
    weights = st.lists(st.floats(1e-3, 1), min_size=VOCAB, max_size=VOCAB)
    p, u = (np.array(data.draw(weights)) for _ in range(2))
    p, u = p / p.sum(), u / u.sum()
    delta = data.draw(st.floats(0, 0.5))
    q = (1 - delta) * p + delta * u
    with jax.enable_x64(True):
        found = np.exp(np.asarray(unmixed(jnp.log(q), jnp.asarray(delta * u))))
    np.testing.assert_allclose(found, p, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        LossConfig(label_smoothing=0.2),
        LossConfig(label_smoothing=0.2, convention="fairseq"),
        LossConfig(label_smoothing=0.2, convention="joeynmt"),
        LossConfig(label_smoothing=0.2, prior="unigram"),
        LossConfig(label_smoothing=0.5, schedule="linear", final_label_smoothing=0.1),
    ],
    ids=["pytorch", "fairseq", "joeynmt", "unigram", "scheduled"],
)
def test_the_exact_mass_is_what_the_optimum_of_the_loss_has_in_it(loss: LossConfig) -> None:
    """Labels drawn from p; the q that minimises their expected loss; un-mixed it is p again."""
    generator = np.random.default_rng(0)
    p = generator.dirichlet(np.ones(VOCAB))
    p[PAD] = 0
    p = p / p.sum()
    prior = generator.dirichlet(np.ones(VOCAB)) if loss.prior == "unigram" else None
    options = convention(loss.convention, VOCAB, PAD)
    if prior is not None:
        options["prior"] = prior
    epsilon = 0.1 if loss.schedule == "linear" else 0.2

    def expected(logits):
        every = jnp.broadcast_to(logits, (VOCAB, VOCAB))
        losses = label_smoothed_cross_entropy(every, jnp.arange(VOCAB), epsilon, **options)
        return jnp.sum(p * losses)

    with jax.enable_x64(True):
        gradient = jax.jit(jax.grad(expected))
        # The gradient is softmax(logits) less the mean target: q itself, read off at any point.
        q = jax.nn.softmax(jnp.zeros(VOCAB)) - gradient(jnp.zeros(VOCAB))
        mass = exact_mass(loss, VOCAB, PAD, prior)
        with np.errstate(divide="ignore"):
            found = np.exp(np.asarray(unmixed(jnp.log(q), jnp.asarray(mass))))
    np.testing.assert_allclose(found, p, atol=1e-6)


@pytest.mark.parametrize(
    "loss",
    [
        LossConfig(kind="confidence_penalty"),
        LossConfig(graduated="self"),
        LossConfig(class_weight_power=0.5),
        LossConfig(prior="unigram", convention="fairseq"),
    ],
)
def test_no_mixture_no_exact_mass(loss: LossConfig) -> None:
    with pytest.raises(UserError, match="decoding.unmix=exact: loss.*fit"):
        exact_mass(loss, VOCAB, PAD, np.ones(VOCAB) / VOCAB)
    given = DecodingConfig(unmix="given", unmix_mass=0.3)
    assert mass_of(given, loss, VOCAB, PAD).sum() == pytest.approx(0.3)
    assert mass_of(DecodingConfig(), loss, VOCAB, PAD) is None


def test_temperature_by_hand() -> None:
    found = np.exp(with_temperature(log([0.5, 0.25, 0.25]), 0.5))
    np.testing.assert_allclose(found, [4 / 6, 1 / 6, 1 / 6], atol=1e-6)
    np.testing.assert_allclose(np.exp(with_temperature(log([0.9, 0.1]), 1e6)), [0.5] * 2, atol=1e-5)


@pytest.mark.parametrize(
    ("cut", "expected"),
    [
        (Cut(), [0.4, 0.3, 0.2, 0.1]),
        (Cut(top_k=2), [0.4, 0.3, 0, 0]),
        (Cut(top_k=9), [0.4, 0.3, 0.2, 0.1]),
        (Cut(top_p=0.65), [0.4, 0.3, 0, 0]),
        (Cut(top_p=0.75), [0.4, 0.3, 0.2, 0]),
        (Cut(top_p=1e-9), [0.4, 0, 0, 0]),
        (Cut(epsilon=0.15), [0.4, 0.3, 0.2, 0]),
        (Cut(epsilon=0.9), [0.4, 0, 0, 0]),
        (Cut(top_k=3, epsilon=0.25), [0.4, 0.3, 0, 0]),
    ],
)
def test_cuts_by_hand(cut: Cut, expected: list[float]) -> None:
    order = np.array([2, 0, 3, 1])
    found = np.exp(cut(log(np.array([0.4, 0.3, 0.2, 0.1])[order])))
    wanted = np.array(expected)[order] / sum(expected)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("wrong", [{"top_k": -1}, {"top_p": 0}, {"top_p": 1.1}, {"epsilon": 1}])
def test_cuts_that_cannot_be(wrong: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Cut(**wrong)
