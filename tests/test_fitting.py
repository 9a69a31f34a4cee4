"""Fitting temperature and un-mixing: the truth is found again; on a model, nll only falls."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import MODEL, random_params, sentence_pairs, tiny_config, tiny_data

from nmt_ls.decoding.distributions import unmixed, with_temperature
from nmt_ls.decoding.scoring import Adjustment, score_tokens, total_nll
from nmt_ls.evaluation.fitting import fit_adjustments

VOCAB, TOKENS = 7, 200


def synthetic(temperature: float, delta: float):
    """Labels by their expected counts under p; predictions p^temperature mixed with 1/V."""
    p = (
        np.random.default_rng(0).dirichlet(np.full(VOCAB, 0.5), size=TOKENS) + 0.02
    )  # far above the floor
    p = p / p.sum(axis=1, keepdims=True)
    q = p**temperature
    q = (1 - delta) * q / q.sum(axis=1, keepdims=True) + delta / VOCAB
    log_q, p = jnp.log(jnp.asarray(q, jnp.float32)), jnp.asarray(p, jnp.float32)

    @jax.jit
    def total(adjustments):
        def one(a):
            clean = unmixed(log_q, a.delta / VOCAB, purpose="likelihood")
            return -jnp.sum(p * with_temperature(clean, a.temperature))

        return jax.lax.map(one, adjustments)

    return lambda a: np.asarray(total(Adjustment(*(np.asarray(x, np.float32) for x in a))))


@pytest.mark.parametrize(("temperature", "delta"), [(1.0, 0.0), (0.7, 0.0), (1.0, 0.2), (1.4, 0.1)])
def test_what_was_put_in_is_found(temperature: float, delta: float) -> None:
    found = fit_adjustments(synthetic(temperature, delta))
    assert found.both.temperature == pytest.approx(temperature, abs=0.05)
    assert found.both.delta == pytest.approx(delta, abs=0.02)
    if not delta:
        assert found.temperature.temperature == pytest.approx(temperature, abs=0.03)
        assert found.temperature.delta == 0
    if temperature == 1:
        assert found.unmixed.delta == pytest.approx(delta, abs=0.015)
        assert found.unmixed.temperature == 1


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    subwords = tiny_data(tiny_config(tmp_path_factory.mktemp("tiny"))).subwords
    params = random_params(MODEL, subwords.source_size, subwords.target_size)
    sources, targets = zip(*sentence_pairs(20, seed=3), strict=True)
    ids = (subwords.encode_source(sources), subwords.encode_target(targets))
    return (MODEL, subwords, params, *ids)


def test_no_adjustment_is_the_likelihood_itself(scored) -> None:
    prior = np.full(scored[1].target_size, 1 / scored[1].target_size, np.float32)
    plain = score_tokens(*scored)
    same = score_tokens(*scored, adjusted=(prior, Adjustment(1.0, 0.0)))
    for one, other in zip(same, plain, strict=True):
        # Adjusted log-probabilities are normalised: their log Z is 0, and no news.
        for a, b in zip(one._replace(log_z=other.log_z), other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
    totals = total_nll(*scored, prior, Adjustment([1.0, 1.3], [0.0, 0.2]))
    assert totals[0] == pytest.approx(sum(float(s.nll.sum()) for s in plain), rel=1e-5)
    other = score_tokens(*scored, adjusted=(prior, Adjustment(1.3, 0.2)))
    assert totals[1] == pytest.approx(sum(float(s.nll.sum()) for s in other), rel=1e-5)
    assert totals[1] != pytest.approx(totals[0], rel=1e-3)


def test_fitting_never_makes_validation_worse(scored) -> None:
    prior = np.full(scored[1].target_size, 1 / scored[1].target_size, np.float32)
    found = fit_adjustments(lambda a: total_nll(*scored, prior, a))
    tried = [Adjustment(), *found]
    nll = total_nll(*scored, prior, Adjustment(*(list(x) for x in zip(*tried, strict=True))))
    assert nll[1] <= nll[0]
    assert nll[2] <= nll[0]
    assert nll[3] <= min(nll[1], nll[2]) * (1 + 1e-6)
