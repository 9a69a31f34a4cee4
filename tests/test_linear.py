"""The loss from hidden states against the closed form on whole logits: values and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import assert_close

from nmt_ls.losses import (
    convention,
    label_smoothed_cross_entropy_with_statistics,
    linear_label_smoothed_cross_entropy_sum_with_statistics,
)

ROWS, WIDTH, VOCAB = (3, 7), 6, 11
OPTIONS = ("exclude_target", "subtract_entropy", "z_loss", "chunk_size")


def case(dtype=np.float64) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(0)
    return {
        "hidden": generator.normal(size=(*ROWS, WIDTH)).astype(dtype),
        "embedding": generator.normal(size=(VOCAB, WIDTH)).astype(dtype),
        "bias": generator.normal(size=VOCAB).astype(dtype),
        "labels": generator.integers(VOCAB, size=ROWS),
        "where": generator.random(ROWS) < 0.7,
    }


@partial(jax.jit, static_argnames=OPTIONS)
def fused(hidden, embedding, bias, labels, where, epsilon, scale=1.0, **options):
    def total(hidden, embedding, bias):
        loss, statistics = linear_label_smoothed_cross_entropy_sum_with_statistics(
            hidden, embedding, labels, epsilon, bias=bias, where=where, **options
        )
        return scale * loss, statistics

    return jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(hidden, embedding, bias)


@partial(jax.jit, static_argnames=OPTIONS)
def whole(hidden, embedding, bias, labels, where, epsilon, scale=1.0, **options):
    def total(hidden, embedding, bias):
        logits = hidden @ embedding.T + bias
        loss, statistics = label_smoothed_cross_entropy_with_statistics(
            logits, labels, epsilon, where=where, **options
        )
        return scale * jnp.sum(loss), statistics

    return jax.value_and_grad(total, argnums=(0, 1, 2), has_aux=True)(hidden, embedding, bias)


def assert_same(a, b, relative: float) -> None:
    (loss_a, statistics_a), gradients_a = a
    (loss_b, statistics_b), gradients_b = b
    assert_close(loss_a, loss_b, relative)
    for one, other in zip(gradients_a, gradients_b, strict=True):
        assert_close(one, other, relative)
    for one, other in zip(statistics_a, statistics_b, strict=True):
        assert_close(one, other, 1e-6)


CONVENTIONS = {
    "pytorch": {},
    "fairseq and z-loss": {"exclude_target": True, "z_loss": 0.01},
    "joeynmt": convention("joeynmt", VOCAB, pad_id=0),
}


@pytest.mark.parametrize(
    ("name", "chunk"),
    [
        ("pytorch", 1),
        ("pytorch", 4),
        ("pytorch", 21),
        ("pytorch", None),
        ("fairseq and z-loss", 4),
        ("joeynmt", 4),
        ("joeynmt", 100),
    ],
)
def test_equals_the_closed_form(name: str, chunk: int | None) -> None:
    options = CONVENTIONS[name]
    with jax.enable_x64(True):
        inputs = case()
        expected = whole(**inputs, epsilon=0.1, scale=0.25, **options)
        found = fused(**inputs, epsilon=0.1, scale=0.25, chunk_size=chunk, **options)
        assert found[0][0].dtype == jnp.float64
    assert_same(found, expected, 1e-12)


def test_epsilon_per_token() -> None:
    with jax.enable_x64(True):
        inputs = case()
        epsilon = np.linspace(0, 1, np.prod(ROWS)).reshape(ROWS)
        expected = whole(**inputs, epsilon=epsilon)
        assert_same(fused(**inputs, epsilon=epsilon, chunk_size=4), expected, 1e-12)


def test_masked_rows_may_hold_anything() -> None:
    inputs = case(np.float32)
    clean = fused(**inputs, epsilon=0.1, chunk_size=4)
    hidden, labels = inputs["hidden"].copy(), inputs["labels"].copy()
    hidden[~inputs["where"]] = np.nan
    labels[~inputs["where"]] = -100
    dirty = fused(**{**inputs, "hidden": hidden, "labels": labels}, epsilon=0.1, chunk_size=4)
    assert_same(dirty, clean, 0)
    assert (np.asarray(dirty[1][0])[~inputs["where"]] == 0).all()


def test_all_rows_masked() -> None:
    inputs = {**case(np.float32), "where": np.zeros(ROWS, bool)}
    inputs["hidden"][:] = np.inf
    (loss, statistics), gradients = fused(**inputs, epsilon=0.1, chunk_size=4)
    assert loss == 0
    for array in (*gradients, *statistics):
        assert (np.asarray(array) == 0).all()


def test_a_label_out_of_range_is_nan() -> None:
    inputs = case(np.float32)
    inputs["labels"][0, 0], inputs["where"][0, 0] = VOCAB, True
    (loss, _), gradients = fused(**inputs, epsilon=0.1, chunk_size=4)
    assert np.isnan(loss)
    assert all(np.isnan(g).any() for g in gradients)


def test_bfloat16_hidden_states() -> None:
    inputs = case(np.float32)
    rounded = {n: jnp.asarray(inputs[n], jnp.bfloat16) for n in ("hidden", "embedding")}
    (loss, _), gradients = fused(
        **{**inputs, "hidden": rounded["hidden"]}, epsilon=0.1, chunk_size=4
    )
    assert loss.dtype == jnp.float32
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32, jnp.float32]
    exact = {n: np.asarray(x, np.float32) for n, x in rounded.items()}
    (expected, _), (_, expected_gradient, _) = whole(**{**inputs, **exact}, epsilon=0.1)
    assert_close(loss, expected, 1e-6)
    assert_close(gradients[1], expected_gradient, 2**-7)


def test_never_holds_all_logits() -> None:
    rows, width, vocab, chunk = 4096, 8, 1000, 64
    shapes = [
        jax.ShapeDtypeStruct(shape, dtype)
        for shape, dtype in (
            ((rows, width), np.float32),
            ((vocab, width), np.float32),
            ((vocab,), np.float32),
            ((rows,), np.int32),
            ((rows,), bool),
            ((), np.float32),
        )
    ]
    compiled = fused.lower(*shapes, chunk_size=chunk).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    assert temporary < 4 * rows * vocab / 8, "an eighth of the logits"
