"""Dropout: its statistics, its purity, and a rate that is a number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nmt_ls.model.dropout import Dropout, DropoutRates, drop, random_words, site_key

KEY = jax.random.key(7, impl="threefry2x32")


@jax.jit
def dropped(x, key, rate):
    return drop(x, key, rate)


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.9])
def test_mean_and_variance(rate: float) -> None:
    size = 100_000
    x = np.asarray(dropped(jnp.ones(size), KEY, rate), np.float64)
    assert set(np.unique(x)) <= {0.0, float(np.float32(1 / (1 - np.float32(rate))))}
    # x is 1/(1−r) with probability 1−r: mean 1, variance r/(1−r).
    deviation = np.sqrt(rate / (1 - rate) / size)
    assert abs(x.mean() - 1) <= 4 * deviation + 1e-6
    kept = (x > 0).mean()
    assert abs(kept - (1 - rate)) <= 4 * np.sqrt(rate * (1 - rate) / size) + 1e-12
    assert x.var() == pytest.approx(rate / (1 - rate), rel=0.05, abs=1e-12)


def test_the_rate_is_traced() -> None:
    traces = []

    @jax.jit
    def run(x, rate):
        traces.append(1)
        return drop(x, KEY, rate)

    few, many = (np.mean(run(jnp.ones(1000), rate) == 0) for rate in (0.1, 0.6))
    assert few < 0.2 < 0.5 < many
    assert len(traces) == 1


def test_rate_0_is_the_identity() -> None:
    x = np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    np.testing.assert_array_equal(dropped(x, KEY, 0.0), x)


def test_no_key_drops_nothing() -> None:
    x = jnp.ones((4, 5))
    dropout = Dropout(None, DropoutRates(0.9, 0.9, 0.9))
    for site in (dropout.residual, dropout.attention, dropout.activation):
        assert site(x) is x
    assert not dropout.drops_attention


def test_sites_differ_and_a_switched_off_one_moves_no_other() -> None:
    x = jnp.ones((20, 30))
    both, one = (
        Dropout(KEY, DropoutRates(0.5, 0.5, 0.5), enabled)
        for enabled in ((True, True, True), (True, False, True))
    )
    first, attention, third = both.residual(x), both.attention(x), both.residual(x)
    assert not np.array_equal(first, third)
    assert not np.array_equal(first, attention)
    np.testing.assert_array_equal(one.residual(x), first)
    assert one.attention(x) is x
    np.testing.assert_array_equal(one.residual(x), third)
    assert both.drops_attention
    assert not one.drops_attention


def test_alone_as_under_vmap() -> None:
    keys = jax.random.split(KEY, 3)
    x = np.random.default_rng(0).normal(size=(3, 8, 9)).astype(np.float32)
    rates = np.array([0.1, 0.5, 0.0], np.float32)
    together = jax.jit(jax.vmap(drop))(x, keys, rates)
    for i in range(3):
        np.testing.assert_array_equal(together[i], dropped(x[i], keys[i], rates[i]))


def test_the_gradient_is_the_mask() -> None:
    x = jnp.arange(1.0, 51.0)
    gradient = jax.grad(lambda x: jnp.sum(drop(x, KEY, 0.3)))(x)
    np.testing.assert_allclose(gradient, dropped(x, KEY, 0.3) / x, rtol=1e-6)


def test_types_are_kept() -> None:
    assert drop(jnp.ones(4, jnp.bfloat16), KEY, 0.1).dtype == jnp.bfloat16


def test_the_words_are_random() -> None:
    words = np.asarray(random_words(KEY, (1 << 16,)))
    other = np.asarray(random_words(jax.random.fold_in(KEY, 1), (1 << 16,)))
    bits = (words[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    # Each bit is fair, neighbours and streams are independent: 5 standard deviations of 2^16 draws.
    limit = 5 * 0.5 / np.sqrt(len(words))
    assert np.abs(bits.mean(axis=0) - 0.5).max() < limit
    assert np.abs((bits[1:] == bits[:-1]).mean(axis=0) - 0.5).max() < limit
    different = ((words ^ other)[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    assert np.abs(different.mean(axis=0) - 0.5).max() < limit


def test_parts_have_the_bits_of_the_whole() -> None:
    x = np.random.default_rng(0).normal(size=(6, 5, 4)).astype(np.float32)
    whole = dropped(x, KEY, 0.5)
    parts = jax.jit(jax.vmap(drop, in_axes=(0, None, None, 0)))
    found = parts(x.reshape(3, 2, 5, 4), KEY, 0.5, np.arange(3))
    np.testing.assert_array_equal(np.reshape(found, whole.shape), whole)
    first, second = (
        Dropout(KEY, DropoutRates(0.5), part=part).residual(half)
        for part, half in enumerate((x[:3], x[3:]))
    )
    np.testing.assert_array_equal(
        np.concatenate([first, second]), Dropout(KEY, DropoutRates(0.5)).residual(x)
    )


def test_places_have_keys_of_their_own() -> None:
    keys = np.array([jax.random.key_data(site_key(KEY, site)) for site in range(1, 200)])
    assert len(np.unique(keys, axis=0)) == 199
    words = np.asarray(random_words(site_key(KEY, 1), (1 << 16,)))
    other = np.asarray(random_words(site_key(KEY, 2), (1 << 16,)))
    different = ((words ^ other)[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    # Two places' bits agree as often as not: 5 standard deviations of 2^16 draws.
    assert np.abs(different.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(1 << 16)
