"""The loss from hidden states against the closed form on whole logits: values and gradients."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import assert_close

from nmt_ls.losses import (
    convention,
    label_smoothed_cross_entropy_with_statistics,
    linear_label_smoothed_cross_entropy,
    linear_label_smoothed_cross_entropy_sum,
    linear_label_smoothed_cross_entropy_sum_with_statistics,
    linear_label_smoothed_cross_entropy_with_statistics,
    unigram_prior,
)
from nmt_ls.losses.chunked import even_chunk_size

ROWS, WIDTH, VOCAB = (3, 7), 6, 11
STATIC = ("exclude_target", "subtract_entropy", "z_loss", "logit_softcap", "chunk_size")


def case(dtype=np.float64, rows=ROWS, vocab=VOCAB, seed=0) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    return {
        "hidden": generator.normal(size=(*rows, WIDTH)).astype(dtype),
        "embedding": generator.normal(size=(vocab, WIDTH)).astype(dtype),
        "bias": generator.normal(size=vocab).astype(dtype),
        "epsilon": generator.uniform(0.05, 0.4, size=rows).astype(dtype),
        "weights": generator.normal(size=rows).astype(dtype),
        "labels": generator.integers(vocab, size=rows),
        "where": generator.random(rows) < 0.7,
    }


def differentiated(total):
    """(value, statistics, gradients of hidden, embedding, bias, ε, weights), compiled."""

    @partial(jax.jit, static_argnames=STATIC)
    def call(hidden, embedding, bias, epsilon, weights, labels, where, prior=None, **options):
        def scalar(*arrays):
            return total(*arrays, labels, where, prior=prior, **options)

        inputs = (hidden, embedding, bias, epsilon, weights)
        return jax.value_and_grad(scalar, argnums=range(5), has_aux=True)(*inputs)

    return call


@differentiated
def summed(hidden, embedding, bias, epsilon, weights, labels, where, **options):
    return linear_label_smoothed_cross_entropy_sum_with_statistics(
        hidden, embedding, labels, epsilon, bias=bias, where=where, weights=weights, **options
    )


@differentiated
def per_token(hidden, embedding, bias, epsilon, weights, labels, where, **options):
    loss, statistics = linear_label_smoothed_cross_entropy_with_statistics(
        hidden, embedding, labels, epsilon, bias=bias, where=where, **options
    )
    return jnp.sum(weights * loss), statistics


@differentiated
def whole(
    hidden, embedding, bias, epsilon, weights, labels, where,
    logit_softcap=None, chunk_size=None, **options,
):  # fmt: skip
    del chunk_size
    logits = hidden @ embedding.T + bias
    if logit_softcap is not None:
        logits = logit_softcap * jnp.tanh(logits / logit_softcap)
    loss, statistics = label_smoothed_cross_entropy_with_statistics(
        logits, labels, epsilon, where=where, **options
    )
    return jnp.sum(weights * loss), statistics


FORMS = pytest.mark.parametrize("form", [summed, per_token], ids=["sum", "per token"])


def assert_same(a, b, relative: float) -> None:
    (loss_a, statistics_a), gradients_a = a
    (loss_b, statistics_b), gradients_b = b
    assert_close(loss_a, loss_b, relative)
    for one, other in zip(gradients_a, gradients_b, strict=True):
        assert_close(one, other, relative)
    for one, other in zip(statistics_a, statistics_b, strict=True):
        assert_close(one, other, max(relative, 1e-6))


UNIGRAM = {"prior": unigram_prior(np.arange(VOCAB))}
CASES = [
    ({}, 1),
    ({}, 4),
    ({}, 21),
    ({}, None),
    ({"exclude_target": True, "z_loss": 0.01}, 4),
    (convention("joeynmt", VOCAB, pad_id=0), 4),
    (convention("joeynmt", VOCAB, pad_id=0), 100),
    ({**UNIGRAM, "subtract_entropy": True}, 4),
    ({**UNIGRAM, "exclude_target": True, "logit_softcap": 1.5, "z_loss": 0.01}, 4),
    ({"logit_softcap": 0.7}, None),
]


@FORMS
@pytest.mark.parametrize(("options", "chunk"), CASES)
def test_equals_the_closed_form(form, options: dict, chunk: int | None) -> None:
    with jax.enable_x64(True):
        inputs = case()
        expected = whole(**inputs, **options)
        found = form(**inputs, chunk_size=chunk, **options)
        assert found[0][0].dtype == jnp.float64
    assert_same(found, expected, 1e-12)


SIZES = [(v, 7) for v in (1, 2, 3, 37, 8_191)] + [(37, n) for n in (0, 1, 1_000)]


@FORMS
@pytest.mark.parametrize(("vocab", "count"), [*SIZES, (8_191, 1_000), (32_003, 97)])
def test_sizes_that_divide_nothing(form, vocab: int, count: int) -> None:
    inputs = case(np.float32, (count,), vocab)
    if not count:
        (loss, _), gradients = form(**inputs)
        assert loss == 0
        assert all(np.all(np.asarray(g) == 0) for g in gradients)
        return
    assert_same(form(**inputs, chunk_size=64), whole(**inputs), 1e-5)


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_any_rows_weights_and_masks(data: st.DataObject) -> None:
    inputs = case(np.float32, (9,), 5, data.draw(st.integers(0, 2**16)))
    numbers = st.lists(st.floats(-4, 4, width=32), min_size=9, max_size=9)
    inputs["weights"] = np.array(data.draw(numbers), np.float32)
    inputs["where"] = np.array(data.draw(st.lists(st.booleans(), min_size=9, max_size=9)))
    prior = data.draw(st.lists(st.sampled_from([0.0, 0.5, 3.0]), min_size=5, max_size=5))
    prior = np.array(prior if any(prior) else [1.0] * 5, np.float32)
    expected = whole(**inputs, prior=prior)
    scale = max(float(np.max(np.abs(expected[1][1]))), 1.0)
    for form in (summed, per_token):
        (loss, _), gradients = form(**inputs, prior=prior, chunk_size=4)
        assert abs(loss - expected[0][0]) <= 1e-5 * max(abs(float(expected[0][0])), 1.0)
        for one, other in zip(gradients, expected[1], strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("weight", [1.0, -0.25])
def test_equal_weights_take_the_gradients_made_in_the_forward_pass(weight: float) -> None:
    """Both branches of the per-token form's backward pass, and rows without weight among them."""
    inputs = case(np.float32)
    inputs["weights"] = np.full(ROWS, weight, np.float32)
    inputs["weights"][~inputs["where"]] = 7  # masked rows do not decide which branch it is
    assert_same(per_token(**inputs, chunk_size=4), whole(**inputs), 1e-5)
    inputs["weights"][inputs["where"]] = 0
    (loss, _), gradients = per_token(**inputs, chunk_size=4)
    assert loss == 0
    assert all(np.all(np.asarray(g) == 0) for g in gradients[:4])


def test_forms_without_statistics_are_the_same_numbers() -> None:
    inputs = case(np.float32)
    arguments = [inputs[n] for n in ("hidden", "embedding", "labels")]
    options = {"where": inputs["where"], "bias": inputs["bias"], "chunk_size": 4}
    per = linear_label_smoothed_cross_entropy(*arguments, 0.2, **options)
    total = linear_label_smoothed_cross_entropy_sum(*arguments, 0.2, **options)
    with_statistics = linear_label_smoothed_cross_entropy_with_statistics(
        *arguments, 0.2, **options
    )
    np.testing.assert_array_equal(per, with_statistics[0])
    assert per.shape == ROWS
    assert_close(total, np.sum(per), 1e-6)


@FORMS
def test_without_bias_and_with_one_traced_epsilon(form) -> None:
    inputs = case(np.float32)
    inputs["epsilon"] = np.float32(0.2)
    full = form(**inputs, chunk_size=4)
    assert_same(full, whole(**inputs), 1e-5)

    def loss(hidden, bias):
        return linear_label_smoothed_cross_entropy(
            hidden, inputs["embedding"], inputs["labels"], 0.2, bias=bias, chunk_size=4
        )

    zeros = np.zeros(VOCAB, np.float32)
    assert_close(loss(inputs["hidden"], None), loss(inputs["hidden"], zeros), 1e-6)


def test_epsilon_0_leaves_the_smoothing_out() -> None:
    inputs = case(np.float32)
    static, traced = (
        linear_label_smoothed_cross_entropy(
            inputs["hidden"], inputs["embedding"], inputs["labels"], e, bias=inputs["bias"]
        )
        for e in (0.0, jnp.float32(0))
    )
    np.testing.assert_array_equal(static, traced)


# --- edges ---------------------------------------------------------------------------------------


@FORMS
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_masked_rows_may_hold_anything(form, softcap: float | None) -> None:
    inputs = case(np.float32)
    out = ~inputs["where"]
    clean = form(**inputs, chunk_size=4, logit_softcap=softcap)
    dirty = {name: value.copy() for name, value in inputs.items()}
    dirty["hidden"][out], dirty["labels"][out], dirty["epsilon"][out] = np.nan, -100, np.nan
    found = form(**dirty, chunk_size=4, logit_softcap=softcap)
    assert_same(found, clean, 0)
    assert (np.asarray(found[1][0])[out] == 0).all()
    assert (np.asarray(found[1][3])[out] == 0).all()


@FORMS
def test_all_rows_masked(form) -> None:
    inputs = {**case(np.float32), "where": np.zeros(ROWS, bool)}
    inputs["hidden"][:] = np.inf
    (loss, statistics), gradients = form(**inputs, chunk_size=4)
    assert loss == 0
    for array in (*gradients, *statistics):
        assert (np.asarray(array) == 0).all()


@FORMS
@pytest.mark.parametrize("label", [-1, VOCAB, 2**31 - 1])
def test_a_label_out_of_range_is_nan(form, label: int) -> None:
    inputs = case(np.float32)
    inputs["labels"][0, 0], inputs["where"][0, 0] = label, True
    (loss, statistics), gradients = form(**inputs, chunk_size=4)
    assert np.isnan(loss)
    assert np.isnan(statistics.nll[0, 0])
    for gradient in gradients[:3]:
        assert np.isnan(gradient).any()
    # Its own row and nobody else's; the embedding's gradient sums over all rows.
    assert np.isnan(gradients[0][0, 0]).all()
    assert np.isfinite(np.asarray(gradients[0]).reshape(-1, WIDTH)[1:]).all()
    losses = linear_label_smoothed_cross_entropy(
        inputs["hidden"], inputs["embedding"], inputs["labels"], where=inputs["where"]
    )
    assert np.isnan(losses[0, 0])
    assert np.isfinite(np.asarray(losses).ravel()[1:]).all()


@FORMS
def test_a_class_ruled_out_by_its_bias(form) -> None:
    """−inf in the bias and no prior: the loss and all gradients stay finite."""
    inputs = case(np.float32)
    inputs["bias"][3] = -np.inf
    inputs["labels"][inputs["labels"] == 3] = 4
    prior = np.ones(VOCAB, np.float32)
    prior[3] = 0
    (loss, statistics), gradients = form(**inputs, prior=prior, chunk_size=4)
    for array in (loss, *statistics, *gradients):
        assert np.isfinite(array).all()
    kept = np.arange(VOCAB) != 3
    short = {**inputs, "embedding": inputs["embedding"][kept], "bias": inputs["bias"][kept]}
    short["labels"] = inputs["labels"] - (inputs["labels"] > 3)
    expected = whole(**short)
    assert_close(loss, expected[0][0], 1e-5)
    assert_close(gradients[0], expected[1][0], 1e-5)
    # With mass on it the loss is infinite, as it should be; without ε it is not met.
    uniform, zero = (
        linear_label_smoothed_cross_entropy(
            inputs["hidden"], inputs["embedding"], inputs["labels"], jnp.float32(e),
            bias=inputs["bias"],
        )
        for e in (0.1, 0.0)
    )  # fmt: skip
    assert np.isposinf(uniform).all()
    assert np.isfinite(zero).all()


@FORMS
def test_bfloat16_hidden_states(form) -> None:
    inputs = case(np.float32)
    rounded = {n: jnp.asarray(inputs[n], jnp.bfloat16) for n in ("hidden", "embedding")}
    (loss, _), gradients = form(**{**inputs, "hidden": rounded["hidden"]}, chunk_size=4)
    assert loss.dtype == jnp.float32
    assert [g.dtype for g in gradients[:3]] == [jnp.bfloat16, jnp.float32, jnp.float32]
    exact = {n: np.asarray(x, np.float32) for n, x in rounded.items()}
    (expected, _), expected_gradients = whole(**{**inputs, **exact})
    # Products of bfloat16 numbers are summed in float32; gradients of logits are rounded once.
    assert_close(loss, expected, 1e-5)
    for one, other in zip(gradients, expected_gradients, strict=True):
        assert_close(one, other, 2**-7)


def test_the_sum_has_second_derivatives() -> None:
    inputs = case(rows=(5,), vocab=4)

    def total(function, hidden, epsilon):
        return function(hidden, inputs["embedding"], inputs["labels"], epsilon)

    def plain(hidden, embedding, labels, epsilon):
        loss, _ = label_smoothed_cross_entropy_with_statistics(
            hidden @ embedding.T, labels, epsilon
        )
        return jnp.sum(loss**1)

    chunked = partial(linear_label_smoothed_cross_entropy_sum, chunk_size=2)

    def second(function):
        def slope(hidden, epsilon):
            gradients = jax.grad(partial(total, function), argnums=(0, 1))(hidden, epsilon)
            return sum(jnp.sum(jnp.sin(g)) for g in gradients)

        return jax.jit(jax.grad(slope, argnums=(0, 1)))(inputs["hidden"], inputs["epsilon"])

    with jax.enable_x64(True):
        for one, other in zip(second(chunked), second(plain), strict=True):
            assert_close(one, other, 1e-12)


def test_what_the_forms_refuse_to_differentiate() -> None:
    inputs = case(np.float32)

    def per(hidden):
        return jnp.sum(
            linear_label_smoothed_cross_entropy(hidden, inputs["embedding"], inputs["labels"]) ** 2
        )

    def total(hidden):
        return linear_label_smoothed_cross_entropy_sum(
            hidden, inputs["embedding"], inputs["labels"]
        )

    with pytest.raises(NotImplementedError, match="second derivatives"):
        jax.grad(lambda h: jnp.sum(jax.grad(per)(h)))(inputs["hidden"])
    for function in (per, total):
        with pytest.raises(TypeError, match="forward-mode"):
            jax.jvp(function, (inputs["hidden"],), (inputs["hidden"],))


def test_under_vmap() -> None:
    inputs = case(np.float32)

    def gradient(hidden, labels, where, weights):
        def total(hidden, embedding):
            loss = linear_label_smoothed_cross_entropy(
                hidden, embedding, labels, where=where, chunk_size=4
            )
            return jnp.sum(weights * loss)

        return jax.grad(total, argnums=(0, 1))(hidden, inputs["embedding"])

    rows = [inputs[n] for n in ("hidden", "labels", "where", "weights")]
    mapped = jax.jit(jax.vmap(gradient))(*rows)
    for i in range(ROWS[0]):
        one = gradient(*(r[i] for r in rows))
        assert_close(mapped[0][i], one[0], 1e-5)
        assert_close(mapped[1][i], one[1], 1e-5)


# --- arguments -----------------------------------------------------------------------------------

FLOATS = {"hidden": np.zeros((3, 4), np.float32), "embedding": np.zeros((5, 4), np.float32)}


@pytest.mark.parametrize(
    ("changed", "error", "words"),
    [
        ({"hidden": np.zeros((3, 3), np.float32)}, ValueError, r"hidden .*\(3, 3\).*\(5, 4\)"),
        ({"hidden": np.zeros((3, 4), int)}, TypeError, "hidden"),
        ({"labels": np.zeros(3, np.float32)}, TypeError, "labels have type float32"),
        ({"labels": np.zeros(2, int)}, ValueError, r"labels have shape \(2,\)"),
        ({"bias": np.zeros(4, np.float32)}, ValueError, r"bias has shape \(4,\)"),
        ({"prior": np.ones((3, 5))}, ValueError, r"prior has shape \(3, 5\).*one for all rows"),
        ({"prior": -np.ones(5)}, ValueError, "prior has a weight that is negative"),
        ({"prior": np.zeros(5)}, ValueError, "prior has no weight above 0"),
        ({"where": np.ones((3, 5))}, ValueError, r"where .*rows.*-inf"),
        ({"where": np.ones(4)}, ValueError, r"where has shape \(4,\)"),
        ({"weights": np.ones(2)}, ValueError, r"weights has shape \(2,\)"),
        ({"label_smoothing": np.array([0.1, 1.5, 0])}, ValueError, "label_smoothing=.* 1.5"),
        ({"label_smoothing": np.ones(2)}, ValueError, r"label_smoothing has shape \(2,\)"),
        ({"chunk_size": 0}, ValueError, "chunk_size=0"),
        ({"logit_softcap": -1.0}, ValueError, "logit_softcap=-1.0"),
    ],
)
def test_arguments_that_cannot_be(changed: dict, error: type, words: str) -> None:
    arguments = {**FLOATS, "labels": np.zeros(3, int), **changed}
    with pytest.raises(error, match=words):
        linear_label_smoothed_cross_entropy_sum(**arguments)


def test_never_holds_all_logits() -> None:
    rows, width, vocab, chunk = 4096, 8, 1000, 64
    shapes = {
        "hidden": (rows, width),
        "embedding": (vocab, width),
        "bias": (vocab,),
        "epsilon": (),
        "weights": (rows,),
    }
    arrays = {n: jax.ShapeDtypeStruct(s, np.float32) for n, s in shapes.items()}
    arrays["labels"] = jax.ShapeDtypeStruct((rows,), np.int32)
    arrays["where"] = jax.ShapeDtypeStruct((rows,), bool)
    for form in (summed, per_token):
        compiled = form.lower(**arrays, chunk_size=chunk).compile()
        temporary = compiled.memory_analysis().temp_size_in_bytes
        assert temporary < 4 * rows * vocab / 8, "an eighth of the logits"


def test_chunks_are_equal_and_on_accelerators_of_whole_eights(monkeypatch) -> None:
    assert even_chunk_size(25_000, 2_097) == 2_084
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert even_chunk_size(25_000, 2_097) == 2_088
    assert even_chunk_size(0, 64) == even_chunk_size(8, 64) == 8
