"""Hard-label statistics by hand; masked sums and means over devices."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nmt_ls.losses import (
    label_smoothed_cross_entropy,
    linear_label_smoothed_cross_entropy,
    linear_label_smoothed_cross_entropy_sum,
    masked_mean,
    masked_sum,
    token_statistics,
)


def test_by_hand() -> None:
    # p = (1/2, 1/4, 1/4), log Z = ln 8 + 1
    logits = np.log(np.array([4.0, 2.0, 2.0], np.float32)) + 1
    found = token_statistics(np.stack([logits] * 3), np.array([0, 1, 2]))
    ln2 = math.log(2)
    np.testing.assert_allclose(found.nll, [ln2, 2 * ln2, 2 * ln2], rtol=1e-6)
    np.testing.assert_allclose(found.entropy, [1.5 * ln2] * 3, rtol=1e-6)
    np.testing.assert_allclose(found.log_z, [3 * ln2 + 1] * 3, rtol=1e-6)
    np.testing.assert_allclose(found.confidence, [0.5] * 3, rtol=1e-6)
    np.testing.assert_array_equal(found.correct, [1, 0, 0])
    assert all(field.dtype == jnp.float32 for field in found)


def test_masked_rows_are_zero_and_ties_are_correct() -> None:
    logits = np.array([[1, 1, 0], [np.nan, 1, 2], [-np.inf, 0, 0]], np.float32)
    found = token_statistics(logits, np.array([1, -100, 1]), np.array([1, 0, 1]))
    for field in found:
        assert np.isfinite(field).all()
        assert field[1] == 0
    np.testing.assert_array_equal(found.correct, [1, 0, 1])
    np.testing.assert_allclose(found.entropy[2], math.log(2), rtol=1e-6)
    narrow = token_statistics(np.zeros((1, 300), np.float32), np.array([127], np.int8))
    np.testing.assert_allclose(narrow.nll, math.log(300), rtol=1e-6)


def test_statistics_carry_no_gradient() -> None:
    logits = np.array([[1.0, 2.0], [0.5, 0.0]], np.float32)
    total = jax.grad(lambda x: sum(jnp.sum(f) for f in token_statistics(x, np.array([0, 1]))))
    np.testing.assert_array_equal(total(logits), np.zeros_like(logits))


def test_masked_sum_and_mean_by_hand() -> None:
    values = np.array([1.0, np.nan, 3.0, 8.0], np.float32)
    where = np.array([True, False, True, True])
    total, count = masked_sum(values, where)
    assert (float(total), float(count)) == (12.0, 3.0)
    assert float(masked_mean(values, where)) == 4.0
    assert float(masked_mean(values, np.zeros(4, bool))) == 0.0
    assert float(masked_mean(values[[0, 2]], None)) == 2.0


def test_the_mean_over_uneven_devices_is_the_mean_on_one() -> None:
    generator = np.random.default_rng(0)
    values = (generator.normal(size=(8, 5)) + np.arange(8)[:, None]).astype(np.float32)
    where = np.arange(5) < np.arange(8)[:, None]  # 0, 1, 2, … 5, 5, 5 values per device
    values[~where] = np.nan
    mean = jax.pmap(lambda v, w: masked_mean(v, w, axis_name="data"), "data")(values, where)
    exact = values[where].astype(np.float64).mean()
    np.testing.assert_allclose(mean, np.full(8, exact), rtol=1e-5)
    of_means = np.mean([values[i][where[i]].mean() for i in range(1, 8)])
    assert abs(of_means - exact) > 0.1, "a mean of means would pass for nothing here"
    none = jax.pmap(lambda v, w: masked_mean(v, w, axis_name="data"), "data")(values, where & False)
    np.testing.assert_array_equal(none, np.zeros(8))


def test_counts_of_half_precision_values_are_exact() -> None:
    values = jnp.full(4097, 0.5, jnp.bfloat16)
    total, count = masked_sum(values, np.ones(4097, bool))
    assert (float(total), float(count)) == (2048.5, 4097.0)


ROWS, WIDTH, VOCAB = 6, 4, 9


def recipe(hidden, embedding, labels, where, axis):
    """Gradient of the local sum, psum of (sum, count, gradient), one division."""

    def total(embedding):
        loss = linear_label_smoothed_cross_entropy_sum(
            hidden, embedding, labels, 0.1, where=where, chunk_size=4
        )
        return loss, jnp.sum(where.astype(jnp.float32))

    (loss, count), gradient = jax.value_and_grad(total, has_aux=True)(embedding)
    loss, count, gradient = jax.lax.psum((loss, count, gradient), axis)
    return loss / count, gradient / count


def test_the_recipe_over_uneven_devices_is_one_device() -> None:
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(8, ROWS, WIDTH)).astype(np.float32)
    embedding = generator.normal(size=(VOCAB, WIDTH)).astype(np.float32)
    labels = generator.integers(VOCAB, size=(8, ROWS))
    where = np.arange(ROWS) < np.arange(8)[:, None]  # 0, 1, 2, … real rows
    hidden[~where], labels[~where] = np.nan, -100

    def alone(embedding):
        clean = jnp.where(where[..., None], hidden, 0)
        loss = label_smoothed_cross_entropy(clean @ embedding.T, labels, 0.1, where=where)
        total, count = masked_sum(loss, where)
        return total / count

    expected = jax.value_and_grad(alone)(embedding)
    mapped = jax.pmap(partial(recipe, axis="data"), "data", in_axes=(0, None, 0, 0), out_axes=None)
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]), ("data",))
    rows, whole = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    sharded = jax.jit(
        jax.shard_map(
            lambda h, e, y, w: recipe(h[0], e, y[0], w[0], "data"),
            mesh=mesh,
            in_specs=(rows, whole, rows, rows),
            out_specs=(whole, whole),
            # Where it is counted what varies (below), jax itself sums the gradient of what all
            # devices share, and the psum of the recipe has nothing left to do.
            check_vma=False,
        )
    )
    for function in (mapped, sharded):
        loss, gradient = function(hidden, embedding, labels, where)
        np.testing.assert_allclose(loss, expected[0], rtol=1e-5)
        np.testing.assert_allclose(gradient, expected[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize("epsilon", [0.0, 0.1])
@pytest.mark.parametrize("softcap", [None, 2.0])
@pytest.mark.parametrize("fused", [True, False], ids=["sum", "per token"])
def test_under_shard_map_as_the_plain_loss(fused: bool, softcap, epsilon: float) -> None:
    """With jax counting what varies, gradients of shared parameters come summed, as its own do."""
    generator = np.random.default_rng(0)
    hidden = generator.normal(size=(8, ROWS, WIDTH)).astype(np.float32)
    embedding = generator.normal(size=(VOCAB, WIDTH)).astype(np.float32)
    labels = generator.integers(VOCAB, size=(8, ROWS))
    weights = generator.random((8, ROWS)).astype(np.float32)

    def local(embedding, hidden, labels, weights):
        options = {"logit_softcap": softcap, "chunk_size": 4}
        if fused:
            return linear_label_smoothed_cross_entropy_sum(
                hidden, embedding, labels, epsilon, weights=weights, **options
            )
        loss = linear_label_smoothed_cross_entropy(hidden, embedding, labels, epsilon, **options)
        return jnp.sum(weights * loss)

    def shard(embedding, hidden, labels, weights):
        loss, gradients = jax.value_and_grad(local, (0, 1))(
            embedding, hidden[0], labels[0], weights[0]
        )
        return jax.lax.psum(loss, "data"), gradients[0], gradients[1][None]

    mesh = jax.sharding.Mesh(np.array(jax.devices()[:8]), ("data",))
    rows, whole = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
    mapped = jax.jit(
        jax.shard_map(
            shard, mesh=mesh, in_specs=(whole, rows, rows, rows), out_specs=(whole, whole, rows)
        )
    )
    loss, d_embedding, d_hidden = mapped(embedding, hidden, labels, weights)
    expected, gradients = jax.value_and_grad(local, (0, 1))(embedding, hidden, labels, weights)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(d_embedding, gradients[0], rtol=0, atol=1e-5)
    np.testing.assert_allclose(d_hidden, gradients[1], rtol=0, atol=1e-6)
