"""The loss against other people's numbers, by hand, and at its edges."""

import math
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import assert_close

from nmt_ls.losses import (
    convention,
    label_smoothed_cross_entropy,
    label_smoothed_cross_entropy_with_statistics,
    token_statistics,
)

GOLDEN = dict(np.load(Path(__file__).parent / "fixtures" / "loss_golden.npz"))
LOGITS, LABELS, MASK = (GOLDEN[name] for name in ("logits", "labels", "mask"))
VOCAB, PAD = LOGITS.shape[-1], int(GOLDEN["pad_id"])
NAN, INF = np.nan, np.inf

OPTIONS = ("exclude_target", "subtract_entropy", "z_loss", "axis")
smoothed = jax.jit(label_smoothed_cross_entropy, static_argnames=OPTIONS)
"""Compiled: operations one by one would take the tests longer to compile."""


@partial(jax.jit, static_argnames=OPTIONS)
def value_and_gradients(logits, labels, epsilon, **options):
    """(Σ loss, (∂/∂logits, ∂/∂ε)), compiled once for all ε."""

    def total(logits, epsilon):
        return jnp.sum(label_smoothed_cross_entropy(logits, labels, epsilon, **options))

    return jax.value_and_grad(total, argnums=(0, 1))(logits, epsilon)


def dense_loss(logits, label, epsilon, prior=None, exclude=False, subtract=False):
    """−Σ q log p of one row in float64, with the target distribution q written out."""
    logits = np.asarray(logits, np.float64)
    u = np.full(len(logits), 1.0) if prior is None else np.array(prior, np.float64)
    u = u / u.sum()
    if exclude:
        u[label] = 0
        if u.sum() == 0:
            u[label] = 1
        u = u / u.sum()
    q = epsilon * u
    q[label] += 1 - epsilon
    log_p = logits - logits.max()
    log_p = log_p - np.log(np.exp(log_p).sum())
    some = q > 0
    entropy = -np.sum(q[some] * np.log(q[some]))
    return -np.sum(q[some] * log_p[some]) - entropy * subtract


# --- other people's numbers ----------------------------------------------------------------------

TOLERANCE = {"huggingface": 1e-7, "joeynmt": 1e-7}


@pytest.mark.parametrize("epsilon", ["0.0", "0.1", "0.3"])
@pytest.mark.parametrize(
    "name", ["pytorch", "optax", "huggingface", "fairseq", "flax_wmt", "joeynmt"]
)
def test_golden_values_and_gradients(name: str, epsilon: str) -> None:
    kind = "mean" if name == "huggingface" else "sum"
    options = convention(name, VOCAB, PAD)
    with jax.enable_x64(True):
        value, (gradient, _) = value_and_gradients(
            LOGITS, LABELS, float(epsilon), where=MASK, **options
        )
        assert value.dtype == jnp.float64
    count = MASK.sum() if kind == "mean" else 1
    value, gradient = np.asarray(value) / count, np.asarray(gradient) / count
    tolerance = TOLERANCE.get(name, 1e-12)
    assert_close(value, GOLDEN[f"{name}/eps{epsilon}/loss_{kind}"], tolerance)
    assert_close(gradient, GOLDEN[f"{name}/eps{epsilon}/grad"], tolerance)


@pytest.mark.parametrize("epsilon", ["0.0", "0.1", "0.3"])
def test_golden_per_token(epsilon: str) -> None:
    with jax.enable_x64(True):
        loss = smoothed(LOGITS, LABELS, float(epsilon), where=MASK)
    assert_close(loss, GOLDEN[f"pytorch/eps{epsilon}/per_token"], 1e-12)


def test_marian_and_t5x_are_pytorch_and_flax_wmt() -> None:
    assert convention("marian", VOCAB) == convention("pytorch", VOCAB)
    assert convention("t5x", VOCAB) == convention("flax_wmt", VOCAB)


# --- by hand -------------------------------------------------------------------------------------


def test_two_classes_by_hand() -> None:
    # logits (ln 3, 0): p = (3/4, 1/4). ε = 0.2, label 0: q = (0.9, 0.1).
    logits = np.log([3.0, 1.0])
    expected = -(0.9 * math.log(0.75) + 0.1 * math.log(0.25))
    with jax.enable_x64(True):
        loss, (gradient, _) = value_and_gradients(logits, 0, 0.2)
    assert_close(loss, expected, 1e-14)
    assert_close(gradient, [0.75 - 0.9, 0.25 - 0.1], 1e-14)


def test_the_other_class_only_by_hand() -> None:
    logits = np.log([3.0, 1.0])
    with jax.enable_x64(True):
        loss = smoothed(logits, 0, 0.2, exclude_target=True)
    assert_close(loss, -(0.8 * math.log(0.75) + 0.2 * math.log(0.25)), 1e-14)


def test_prior_by_hand() -> None:
    # p = (1/2, 1/4, 1/4), weights (0, 3, 1) → u = (0, 3/4, 1/4); ε = 0.4, label 0.
    logits = np.log([2.0, 1.0, 1.0])
    with jax.enable_x64(True):
        loss = smoothed(logits, 0, 0.4, prior=np.array([0.0, 3.0, 1.0]))
    assert_close(loss, 0.6 * math.log(2) + 0.4 * math.log(4), 1e-14)


@pytest.mark.parametrize(
    ("shape", "weight"), [((), 1), ((4, 6, 1), 3), ((1, VOCAB), 1e-60), ((VOCAB,), 1e308)]
)
def test_a_prior_broadcasts_and_is_normalised_in_float64(shape: tuple, weight: float) -> None:
    logits = LOGITS.astype(np.float32)
    found = label_smoothed_cross_entropy(logits, LABELS, 0.3, prior=np.full(shape, weight))
    np.testing.assert_allclose(found, smoothed(logits, LABELS, 0.3), rtol=1e-6)


def test_the_kl_form_is_zero_at_its_optimum() -> None:
    for options in ({}, {"exclude_target": True}, {"prior": np.array([1.0, 2.0, 0.0, 3.0])}):
        q = np.full(4, 0.1 / 4)
        if "exclude_target" in options:
            q = np.full(4, 0.1 / 3)
            q[1] = 0
        elif "prior" in options:
            q = 0.1 * options["prior"] / 6
        q[1] += 0.9
        with jax.enable_x64(True), np.errstate(divide="ignore"):
            loss, (gradient, _) = value_and_gradients(
                np.log(q), 1, 0.1, subtract_entropy=True, **options
            )
        assert abs(float(loss)) < 1e-15
        assert np.max(np.abs(gradient)) < 1e-15


def test_z_loss_by_hand() -> None:
    logits = np.log([3.0, 5.0])  # log Z = ln 8
    with jax.enable_x64(True):
        without = smoothed(logits, 1, 0.1)
        loss, (gradient, _) = value_and_gradients(logits, 1, 0.1, z_loss=0.5)
    assert_close(float(loss) - float(without), 0.5 * math.log(8) ** 2, 1e-14)
    p = np.array([3, 5]) / 8
    expected = p * (1 + 2 * 0.5 * math.log(8)) - np.array([0.05, 0.95])
    assert_close(gradient, expected, 1e-14)


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_equals_the_dense_sum(data: st.DataObject) -> None:
    vocab = 7
    numbers = st.floats(-30, 30)
    logits = data.draw(st.lists(numbers, min_size=vocab, max_size=vocab))
    label = data.draw(st.integers(0, vocab - 1))
    epsilon = data.draw(st.floats(0, 1))
    prior = data.draw(
        st.none()
        | st.lists(st.sampled_from([0.0, 0.5, 1.0, 4.0]), min_size=vocab, max_size=vocab).filter(
            lambda w: sum(w) > 0
        )
    )
    exclude, subtract = data.draw(st.booleans()), data.draw(st.booleans())
    with jax.enable_x64(True):
        loss = smoothed(
            np.array(logits),
            label,
            epsilon,
            prior=None if prior is None else np.array(prior),
            exclude_target=exclude,
            subtract_entropy=subtract,
        )
    expected = dense_loss(logits, label, epsilon, prior, exclude, subtract)
    assert abs(float(loss) - expected) <= 1e-12 * max(1.0, np.max(np.abs(logits)))


# --- masks, labels, ε ----------------------------------------------------------------------------


@pytest.mark.parametrize(("exclude", "subtract"), [(False, False), (True, True)])
def test_masked_rows_may_hold_anything(exclude: bool, subtract: bool) -> None:
    logits = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    labels = np.array([1, 2, 3, -100, 2**31 - 1, 0])
    where = np.array([True, False, False, False, False, True])
    clean, clean_labels = logits[where], labels[where]
    logits[1], logits[2, 2], logits[3], logits[4, 0] = NAN, INF, -INF, NAN
    options = {"exclude_target": exclude, "subtract_entropy": subtract, "z_loss": 0.1}

    loss = smoothed(logits, labels, 0.1, where=where, **options)
    assert (np.asarray(loss)[~where] == 0).all()
    _, gradients = value_and_gradients(logits, labels, 0.1, where=where, **options)
    _, expected = value_and_gradients(clean, clean_labels, 0.1, **options)
    assert (np.asarray(gradients[0])[~where] == 0).all()
    np.testing.assert_allclose(gradients[0][where], expected[0], rtol=0, atol=1e-6)
    np.testing.assert_allclose(gradients[1], expected[1], rtol=1e-6)


def test_masked_rows_under_vmap_and_with_a_last_axis() -> None:
    logits = np.random.default_rng(0).normal(size=(4, 6, 5)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, 5, size=(4, 6))
    where = np.random.default_rng(2).integers(0, 2, size=(4, 6))
    logits[where == 0] = NAN
    plain = smoothed(logits, labels, where=where)
    assert np.isfinite(plain).all()
    last = smoothed(logits, labels, where=where[..., None].astype(np.float32))
    np.testing.assert_array_equal(plain, last)
    mapped = jax.vmap(lambda x, y, w: smoothed(x, y, where=w))(logits, labels, where)
    np.testing.assert_array_equal(plain, mapped)
    moved = smoothed(np.moveaxis(logits, -1, 0), labels, where=where, axis=0)
    np.testing.assert_array_equal(plain, moved)


def test_nan_stays_in_its_row() -> None:
    logits = np.zeros((3, 4), np.float32)
    logits[1, 2] = NAN
    loss = smoothed(logits, np.array([0, 1, 2]))
    assert np.isnan(loss[1])
    np.testing.assert_allclose(np.asarray(loss)[[0, 2]], math.log(4), rtol=1e-6)


@pytest.mark.parametrize("label", [-1, -100, 5, 2**31 - 1])
def test_labels_out_of_range_are_nan_in_loss_and_gradient(label: int) -> None:
    logits = np.random.default_rng(0).normal(size=(2, 5)).astype(np.float32)

    labels = np.array([label, 1])
    loss, statistics = label_smoothed_cross_entropy_with_statistics(logits, labels)
    assert np.isnan(loss[0])
    assert np.isnan(statistics.nll[0])
    assert np.isfinite(loss[1])
    _, (gradient, _) = value_and_gradients(logits, labels, 0.1)
    assert np.isnan(gradient[0]).all()
    assert np.isfinite(gradient[1]).all()


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.int64])
def test_label_types(dtype: type) -> None:
    logits = np.random.default_rng(0).normal(size=(3, 300)).astype(np.float32)
    labels = np.array([3, 0, 127])
    expected = smoothed(logits, labels)
    np.testing.assert_array_equal(smoothed(logits, labels.astype(dtype)), expected)


@pytest.mark.parametrize("label", [2**32, -(2**32), np.uint64(2**64 - 1)])
def test_labels_of_64_bits_are_not_wrapped(label) -> None:
    logits = np.zeros((2, 5), np.float32)
    loss = label_smoothed_cross_entropy(logits, np.array([label, 1], getattr(label, "dtype", None)))
    np.testing.assert_array_equal(np.isnan(loss), [True, False])
    assert np.isnan(label_smoothed_cross_entropy(logits[0], label))


def test_a_traced_epsilon_compiles_once() -> None:
    traces = []

    @jax.jit
    def loss(logits, labels, epsilon):
        traces.append(1)
        return jnp.sum(smoothed(logits, labels, epsilon))

    logits = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    values = [float(loss(logits, np.array([0, 1, 2]), epsilon)) for epsilon in (0.0, 0.1, 0.9)]
    assert len(set(values)) == 3
    assert len(traces) == 1


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 0.1, 1.0])
def test_the_gradient_of_epsilon_is_exact(epsilon: float, exclude: bool) -> None:
    # L is linear in ε, so that its derivative is the difference of its ends.
    with jax.enable_x64(True):
        at_0, at_1, (_, (_, gradient)) = (
            value_and_gradients(LOGITS, LABELS, e, where=MASK, exclude_target=exclude)
            for e in (0.0, 1.0, epsilon)
        )
    assert_close(gradient, float(at_1[0]) - float(at_0[0]), 1e-12)


def test_epsilon_per_token() -> None:
    epsilon = np.linspace(0, 0.5, LABELS.size, dtype=np.float32).reshape(LABELS.shape)
    logits = LOGITS.astype(np.float32)
    loss = smoothed(logits, LABELS, epsilon, where=MASK)
    for i in range(LABELS.shape[0]):
        for j in range(LABELS.shape[1]):
            one = smoothed(logits[i, j], LABELS[i, j], float(epsilon[i, j]), where=MASK[i, j])
            np.testing.assert_allclose(loss[i, j], one, rtol=1e-6)


@pytest.mark.parametrize("epsilon", [-0.1, 1.5, NAN])
def test_a_static_epsilon_out_of_range_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="label_smoothing="):
        label_smoothed_cross_entropy(np.zeros(3), 0, epsilon)


# --- edges ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", [0.0, jnp.float32(0)], ids=["static", "traced"])
def test_epsilon_0_is_optax(epsilon) -> None:
    theirs = jax.jit(optax.softmax_cross_entropy_with_integer_labels)
    logits = LOGITS.astype(np.float32)
    assert_close(smoothed(logits, LABELS, epsilon), theirs(logits, LABELS), 2e-6)
    # Where the maximum is 0 there is nothing to shift, and not a bit differs.
    shifted = logits - logits.max(axis=-1, keepdims=True)
    np.testing.assert_array_equal(smoothed(shifted, LABELS, epsilon), theirs(shifted, LABELS))


@pytest.mark.parametrize("traced", [False, True])
def test_epsilon_0_with_an_infinite_logit(traced: bool) -> None:
    logits = np.array([1.0, -INF, 2.0], np.float32)
    call = jax.value_and_grad(smoothed)
    loss, gradient = (jax.jit(call) if traced else call)(logits, 0, 0.0)
    assert_close(loss, math.log(1 + math.e), 1e-6)
    p = math.e / (1 + math.e)
    np.testing.assert_allclose(gradient, [1 - p - 1, 0, p], rtol=1e-6)
    # With mass on a class of probability 0 the loss is infinite, as it should be.
    assert np.isposinf(smoothed(logits, 0, 0.1))
    # A prior that leaves the class out keeps it finite, its gradient too.
    loss, gradient = call(logits, 0, 0.1, prior=np.array([1.0, 0.0, 1.0]))
    assert np.isfinite(loss)
    assert np.isfinite(gradient).all()


def test_one_class_and_two() -> None:
    for options in ({}, {"exclude_target": True}, convention("flax_wmt", 1)):
        loss, (gradient, _) = value_and_gradients(np.ones(1, np.float32), 0, 0.3, **options)
        assert loss == 0, options
        assert gradient == 0, options
    # V = 2 with a padding class: nothing is left to receive ε, the target keeps it.
    logits = np.array([1.0, 0.5], np.float32)
    loss = smoothed(logits, 1, 0.3, **convention("joeynmt", 2, pad_id=0))
    assert_close(loss, math.log(1 + math.exp(0.5)), 1e-6)


def test_epsilon_1_is_finite() -> None:
    for options in ({}, {"exclude_target": True}):
        for subtract in (False, True):
            loss, (gradient, _) = value_and_gradients(
                np.array([1, 0, 2], np.float32), 0, 1.0, subtract_entropy=subtract, **options
            )
            assert np.isfinite(loss)
            assert np.isfinite(gradient).all()


def test_large_offsets_cost_nothing() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 11)).round(1)
    labels = np.arange(5)
    for offset in (2.0**16, -(2.0**16)):
        # Rounded by the offset's own float32 spacing, 2**-7; compare with the same rounded row.
        shifted = (logits + offset).astype(np.float32)
        exact = smoothed(shifted - np.float32(offset), labels)
        assert_close(smoothed(shifted, labels), exact, 1e-6)


@pytest.mark.parametrize("size", [1e30, float(np.finfo(np.float32).max)])
def test_huge_logits_are_finite(size: float) -> None:
    logits = np.array([size, 0, -1], np.float32)
    loss, (gradient, _) = value_and_gradients(logits, 0, 0.0)
    assert loss == 0
    assert (np.asarray(gradient) == 0).all()
    # From one end of float32 to the other: further apart than float32 can say.
    logits = np.array([size, -size, 0], np.float32)
    for options in ({}, {"exclude_target": True}, {"prior": np.array([1.0, 2.0, 1.0])}):
        loss, (gradient, _) = value_and_gradients(logits, 0, 0.1, **options)
        assert np.isfinite(loss), options
        assert np.isfinite(gradient).all(), options
    gradient = value_and_gradients(logits, 0, 0.1)[1][0]
    np.testing.assert_allclose(gradient, [0.1 * 2 / 3, -0.1 / 3, -0.1 / 3], rtol=1e-5)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_logits(dtype) -> None:
    vocab = 32_768
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(4, vocab)) * 3, dtype)
    labels = np.array([0, 5, 32_767, 77])
    loss = smoothed(logits, labels, 0.1)
    assert loss.dtype == jnp.float32
    exact = [
        dense_loss(row, label, 0.1)
        for row, label in zip(np.asarray(logits, np.float64), labels, strict=True)
    ]
    assert_close(loss, exact, 1e-6)
    gradient = jax.grad(lambda x: jnp.sum(smoothed(x, labels, 0.1)))(logits)
    assert gradient.dtype == dtype


def test_a_confident_bfloat16_row_keeps_its_gradient() -> None:
    logits = jnp.asarray([9.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], jnp.bfloat16)
    gradient = jax.grad(smoothed)(logits, 0, 0.0)
    expected = -7 * math.exp(-9) / (1 + 7 * math.exp(-9))
    assert abs(float(gradient[0]) / expected - 1) < 2**-8


def test_statistics_come_with_the_loss() -> None:
    logits = LOGITS.astype(np.float32)
    loss, statistics = label_smoothed_cross_entropy_with_statistics(logits, LABELS, where=MASK)
    np.testing.assert_array_equal(loss, label_smoothed_cross_entropy(logits, LABELS, where=MASK))
    for one, other in zip(statistics, token_statistics(logits, LABELS, MASK), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("rows", [np.full(4, -INF), np.array([0, INF, 0, 0]), np.full(4, NAN)])
def test_rows_that_are_no_distribution(rows: np.ndarray) -> None:
    logits = np.stack([rows, np.zeros(4)]).astype(np.float32)
    loss, _ = value_and_gradients(logits, np.array([0, 1]), 0.1)
    assert np.isnan(loss)
    losses = smoothed(logits, np.array([0, 1]))
    assert np.isnan(losses[0])
    assert_close(losses[1], math.log(4), 1e-6)
    loss, (gradient, _) = value_and_gradients(
        logits, np.array([0, 1]), 0.1, where=np.array([False, True])
    )
    assert_close(loss, math.log(4), 1e-6)
    assert (np.asarray(gradient)[0] == 0).all()


def test_derivatives_of_any_order() -> None:
    logits, labels, epsilon = LOGITS[0, :2], LABELS[0, :2], np.array([0.1, 0.3])
    prior = np.arange(VOCAB, dtype=np.float64)

    def total(x, e):
        return jnp.sum(label_smoothed_cross_entropy(x, labels, e, prior=prior, exclude_target=True))

    with jax.enable_x64(True):
        softmax = jax.nn.softmax(logits)
        hessian = jax.jit(jax.hessian(total))(logits, epsilon)
        for i in range(2):
            p = softmax[i]
            assert_close(hessian[i, :, i, :], jnp.diag(p) - jnp.outer(p, p), 1e-12)
            assert np.max(np.abs(hessian[i, :, 1 - i, :])) == 0
        gradients = jax.grad(total, (0, 1))(logits, epsilon)
        direction = (np.ones_like(logits) * np.arange(VOCAB), np.array([1.0, -2.0]))
        _, slope = jax.jvp(total, (logits, epsilon), direction)
        expected = sum(jnp.vdot(g, d) for g, d in zip(gradients, direction, strict=True))
        assert_close(slope, expected, 1e-12)
        mixed = jax.jacfwd(jax.grad(total), argnums=1)(logits, epsilon)
        over = jax.jacrev(jax.grad(total), argnums=1)(logits, epsilon)
        assert_close(mixed, over, 1e-12)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_saves_the_logits_and_numbers_per_row(dtype) -> None:
    rows, vocab = 64, 4096

    def total(x):
        return jnp.sum(label_smoothed_cross_entropy(x, jnp.zeros(rows, int), 0.1))

    _, pullback = jax.vjp(total, jnp.zeros((rows, vocab), dtype))
    saved = sorted(x.nbytes for x in jax.tree.leaves(pullback) if hasattr(x, "nbytes"))
    assert saved[-1] == rows * vocab * jnp.dtype(dtype).itemsize, "the logits"
    assert sum(saved[:-1]) < 100 * rows


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        (
            {"logits": np.zeros((3, 5), int)},
            TypeError,
            "logits has type int64|logits has type int32",
        ),
        ({"labels": np.zeros(3, np.float32)}, TypeError, "labels have type float32"),
        ({"labels": np.zeros(3, bool)}, TypeError, "labels have type bool"),
        ({"labels": np.zeros(4, int)}, ValueError, r"labels have shape \(4,\)"),
        ({"label_smoothing": np.ones(2)}, ValueError, r"label_smoothing has shape \(2,\)"),
        ({"label_smoothing": np.array([0, 0, -1])}, ValueError, "label_smoothing="),
        ({"prior": np.array([1, 1, -1, 1, 1])}, ValueError, "prior has a weight"),
        ({"prior": np.zeros(5)}, ValueError, "prior has no weight"),
        ({"prior": np.ones(4)}, ValueError, r"prior has shape \(4,\)"),
        ({"where": np.ones(4)}, ValueError, r"where has shape \(4,\)"),
        ({"where": np.ones((3, 5))}, ValueError, "-inf and their prior to 0"),
        ({"axis": (0, 1)}, ValueError, "one axis.*-inf"),
        ({"axis": 2}, ValueError, "axis=2"),
    ],
)
def test_arguments_that_cannot_be(changed: dict, error: type, words: str) -> None:
    arguments = {"logits": np.zeros((3, 5), np.float32), "labels": np.zeros(3, int), **changed}
    with pytest.raises(error, match=words):
        label_smoothed_cross_entropy(**arguments)


def test_a_prior_per_row_and_another_axis() -> None:
    prior = np.random.default_rng(0).random((VOCAB, 6)).astype(np.float32)
    logits = np.moveaxis(LOGITS, -1, 1).astype(np.float32)  # [4, V, 6]
    loss = smoothed(logits, LABELS, 0.3, where=MASK, prior=prior, axis=1)
    expected = smoothed(LOGITS.astype(np.float32), LABELS, 0.3, where=MASK, prior=prior.T)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    one = smoothed(LOGITS[1, 2].astype(np.float32), LABELS[1, 2], 0.3, prior=prior[:, 2])
    np.testing.assert_allclose(loss[1, 2], one, rtol=1e-6)


def test_no_rows_at_all() -> None:
    loss = smoothed(np.zeros((0, 5), np.float32), np.zeros(0, int))
    assert loss.shape == (0,)


def test_light_to_import() -> None:
    import subprocess
    import sys

    heavy = "flax sentencepiece datasets orbax matplotlib"
    code = f"import sys, nmt_ls.losses; print([m for m in '{heavy}'.split() if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
