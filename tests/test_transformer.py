"""The model: cached and uncached decoding agree, padding does not matter, types are kept."""

import dataclasses
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from tiny import MODEL, assert_close, random_params

from nmt_ls.config import ModelConfig
from nmt_ls.model import Dropout, DropoutRates, graph_of, model_of
from nmt_ls.model.layers import (
    FeedForward,
    LayerNorm,
    paper_positions,
    project,
    relu,
    sinusoidal_positions,
)
from nmt_ls.model.transformer import settle

BOS, SOURCE_SIZE, TARGET_SIZE = 2, 17, 19
B, S, T = 3, 6, 5

VARIANTS = {
    "pre, sinusoidal, relu, all tied": {"tied_embeddings": "all"},
    "post, learned, gelu, decoder tied": {
        "norm": "post",
        "positions": "learned",
        "activation": "gelu",
        "tied_embeddings": "decoder",
    },
    "pre, learned, swiglu, none tied": {
        "positions": "learned",
        "activation": "swiglu",
        "tied_embeddings": "none",
    },
    "post, sinusoidal, relu, none tied": {"norm": "post", "tied_embeddings": "none"},
    "Marian's": {
        "norm": "post",
        "positions": "sinusoidal_paper",
        "activation": "swish",
        "scale_embeddings": False,
        "output_bias": True,
        "norm_epsilon": 1e-5,
    },
}


def model_config(name: str, **more: object) -> ModelConfig:
    return dataclasses.replace(MODEL, **{**VARIANTS[name], **more})


def sizes_of(config: ModelConfig) -> tuple[int, int]:
    return (TARGET_SIZE if config.tied_embeddings == "all" else SOURCE_SIZE), TARGET_SIZE


@lru_cache
def params_of(config: ModelConfig) -> dict[str, jax.Array]:
    # Numpy's: compiling the initialiser takes longer than everything else here together.
    return random_params(config, *sizes_of(config))


@lru_cache
def logits_of(config: ModelConfig):
    """fn(params, source, lengths, inputs) → logits [B, T, V], compiled."""
    graph = graph_of(config, *sizes_of(config))

    @jax.jit
    def run(params, source, lengths, inputs):
        model = model_of(graph, params)
        return model.logits(model.decode(model.encode(source, lengths), inputs))

    return run


def sentences() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(3)
    source = generator.integers(3, SOURCE_SIZE, size=(B, S))
    inputs = generator.integers(3, TARGET_SIZE, size=(B, T))
    inputs[:, 0] = BOS
    return source, np.array([S, 1, 4]), inputs


@pytest.mark.parametrize("name", VARIANTS)
def test_cached_logits_are_the_uncached_ones(name: str) -> None:
    config = model_config(name)
    graph, params = graph_of(config, *sizes_of(config)), params_of(config)
    source, lengths, inputs = sentences()
    # Two hypotheses per sentence, the second with other words.
    second = np.where(inputs == BOS, BOS, (inputs + 4) % TARGET_SIZE)
    both = np.stack([inputs, second], axis=1)  # [B, 2, T]

    @jax.jit
    def both_ways(params, source, lengths, tokens):
        model = model_of(graph, params)
        memory = model.encode(source, lengths)

        def step(cache, at):
            position, now = at
            logits, cache = model.decode_step(memory, now, position, cache)
            return cache, logits

        cache = model.start_cache(B * 2, T + 3)
        steps = jax.lax.scan(step, cache, (jnp.arange(T), jnp.moveaxis(tokens, 2, 0)))[1]
        return steps, [model.logits(model.decode(memory, tokens[:, i])) for i in range(2)]

    steps, whole = both_ways(params, source, lengths, both)  # [T, B, 2, V]
    for i in range(2):
        for position in range(T):
            assert_close(steps[position, :, i], whole[i][:, position], 1e-5)
    assert np.abs(whole[0] - whole[1]).max() > 0.1


@pytest.mark.parametrize("name", list(VARIANTS)[:2])
def test_padding_does_not_matter(name: str) -> None:
    config = model_config(name)
    run, params = logits_of(config), params_of(config)
    source, lengths, inputs = sentences()
    before = run(params, source, lengths, inputs)
    longer = np.full((B, S + 4), 5)
    longer[:, :S] = source
    more = np.full((B, T + 3), 7)
    more[:, :T] = inputs
    after = run(params, longer, lengths, more)
    assert_close(after[:, :T], before, 1e-6)
    # Nor do the ids that stand in the padding of the source.
    other = np.where(np.arange(S) < lengths[:, None], source, 11)
    assert_close(run(params, other, lengths, inputs), before, 1e-6)
    # What is real does matter.
    changed = source.copy()
    changed[:, 0] = (source[:, 0] - 2) % 14 + 3
    assert np.abs(run(params, changed, lengths, inputs) - before).max() > 1e-2


def test_the_future_does_not_matter() -> None:
    config = model_config("pre, sinusoidal, relu, all tied")
    run, params = logits_of(config), params_of(config)
    source, lengths, inputs = sentences()
    before = run(params, source, lengths, inputs)
    changed = inputs.copy()
    changed[:, 3] = (inputs[:, 3] + 1) % TARGET_SIZE
    after = run(params, source, lengths, changed)
    np.testing.assert_array_equal(after[:, :3], before[:, :3])
    assert np.abs(after[:, 3] - before[:, 3]).max() > 1e-2


def test_empty_rows_are_finite() -> None:
    config = model_config("pre, sinusoidal, relu, all tied")
    source, _, inputs = sentences()
    logits = logits_of(config)(params_of(config), source * 0, np.zeros(B, np.int64), inputs)
    assert np.isfinite(logits).all()


def test_bfloat16_gives_float32_logits_from_float32_parameters() -> None:
    config = model_config("pre, sinusoidal, relu, all tied", compute="bfloat16")
    params = params_of(config)
    assert {p.dtype for p in params.values()} == {jnp.dtype("float32")}
    source, lengths, inputs = sentences()
    logits = logits_of(config)(params, source, lengths, inputs)
    assert logits.dtype == jnp.float32
    exact = logits_of(dataclasses.replace(config, compute="float32"))(
        params, source, lengths, inputs
    )
    assert_close(logits, exact, 0.05)
    assert not np.array_equal(logits, exact)


def test_explicit_attention_gives_the_same_logits() -> None:
    config = model_config("post, sinusoidal, relu, none tied")
    explicit = dataclasses.replace(config, attention="explicit")
    source, lengths, inputs = sentences()
    params = params_of(config)
    found = logits_of(explicit)(params, source, lengths, inputs)
    assert_close(found, logits_of(config)(params, source, lengths, inputs), 2e-6)


def test_dropout_depends_on_its_key_and_rates_alone() -> None:
    config = model_config("pre, sinusoidal, relu, all tied")
    graph, params = graph_of(config, *sizes_of(config)), params_of(config)
    source, lengths, inputs = sentences()

    @jax.jit
    def run(params, key, rates):
        model, dropout = model_of(graph, params), Dropout(key, rates)
        memory = model.encode(source, lengths, dropout)
        return model.logits(model.decode(memory, inputs, dropout))

    key, other = jax.random.key(1), jax.random.key(2)
    plain = logits_of(config)(params, source, lengths, inputs)
    assert_close(run(params, key, DropoutRates(0.0, 0.0, 0.0)), plain, 2e-6)
    for kind in DropoutRates._fields:
        rates = DropoutRates(**{**DropoutRates(0.0, 0.0, 0.0)._asdict(), kind: 0.3})
        once = run(params, key, rates)
        assert np.abs(once - plain).max() > 1e-2, kind
        np.testing.assert_array_equal(once, run(params, key, rates))
        assert np.abs(once - run(params, other, rates)).max() > 1e-2


def test_one_vocabulary_for_tied_embeddings() -> None:
    config = model_config("pre, sinusoidal, relu, all tied")
    with pytest.raises(ValueError, match="one vocabulary"):
        graph_of(config, 17, 19)


def test_sinusoids_by_hand() -> None:
    found = np.asarray(sinusoidal_positions(np.array([0, 3]), 6))
    np.testing.assert_allclose(found[0], [0, 0, 0, 1, 1, 1], atol=1e-7)
    angles = 3 * np.array([1, 1e-2, 1e-4])
    np.testing.assert_allclose(
        found[1], np.concatenate([np.sin(angles), np.cos(angles)]), rtol=1e-5
    )


def test_the_papers_sinusoids_are_those_of_a_float64_table() -> None:
    positions = np.concatenate([np.arange(300), [511, 1023, 4095]])
    angles = positions[:, None] / 10000 ** (2 * np.arange(32) / 64)
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(jax.jit(paper_positions, static_argnums=1)(positions, 64), table,
                               rtol=0, atol=2e-7)  # fmt: skip
    np.testing.assert_allclose(np.asarray(paper_positions(np.array([3]), 4))[0],
                               [np.sin(3), np.sin(0.03), np.cos(3), np.cos(0.03)],
                               atol=1e-7)  # fmt: skip


@pytest.mark.parametrize(
    ("activation", "expected"),
    # At 1 and −2: x·Φ(x) with Φ from tables; its tanh approximation; x/(1 + exp(−x)).
    [
        ("relu", [1.0, 0.0]),
        ("gelu_exact", [0.8413447, -0.0455003]),
        ("gelu", [0.8411920, -0.0454023]),
        ("swish", [0.7310586, -0.2384058]),
    ],
)
def test_activations_by_hand(activation: str, expected: list[float]) -> None:
    layer = FeedForward(2, 2, activation, dtype=jnp.float32, rngs=nnx.Rngs(0))
    layer.expand.kernel[...] = layer.contract.kernel[...] = jnp.eye(2)
    found = layer(jnp.asarray([[[1.0, -2.0]]]), Dropout())
    np.testing.assert_allclose(found[0, 0], expected, atol=1e-6)


def test_the_gradient_of_relu_is_jaxs() -> None:
    x = jnp.array([-2.0, -0.0, 0.0, 1e-45, 3.0, jnp.inf, -jnp.inf])
    for ours, theirs in ((relu, jax.nn.relu), (jax.grad(relu), jax.grad(jax.nn.relu))):
        np.testing.assert_array_equal(jax.vmap(ours)(x), jax.vmap(theirs)(x))


def test_the_epsilon_of_norms() -> None:
    x = jnp.asarray([[-0.5, 0.5]])  # variance 1/4
    found = LayerNorm(2, dtype=jnp.float32, epsilon=0.75)(x)
    np.testing.assert_allclose(found, x, rtol=1e-6)
    config = model_config("pre, sinusoidal, relu, all tied", norm_epsilon=0.75)
    model = model_of(graph_of(config, *sizes_of(config)), params_of(config))
    norms = [*model.encoder[0].norms, *model.decoder[0].norms, model.encoder_norm]
    assert {norm.epsilon for norm in norms} == {0.75}


def test_unscaled_embeddings_and_the_bias_of_logits() -> None:
    config = model_config("Marian's")
    params = params_of(config)
    source, lengths, inputs = sentences()
    logits = logits_of(config)(params, source, lengths, inputs)
    # The scale is the same as a table that is so much larger, with √D off the output matrix.
    scaled = dataclasses.replace(config, scale_embeddings=True, tied_embeddings="none")
    table = params["target_embedding.table"]
    more = {
        **params,
        "target_embedding.table": table / config.width**0.5,
        "source_embedding.table": table[:SOURCE_SIZE] / config.width**0.5,
        "output.kernel": table.T,
        "output.bias": params["output_bias"],
    }
    del more["output_bias"]
    assert_close(logits_of(scaled)(more, source, lengths, inputs), logits, 1e-5)
    without = {**params, "output_bias": 0 * params["output_bias"]}
    difference = logits - logits_of(config)(without, source, lengths, inputs)
    np.testing.assert_allclose(difference - params["output_bias"], 0, atol=1e-6)
    assert np.abs(params["output_bias"]).max() > 0.01


@pytest.mark.parametrize("first", [1.0, -2.0, 0.0, np.nan, np.inf])
def test_settling_changes_nothing(first: float) -> None:
    x = jnp.asarray([[first, 2.0], [3.0, -4.0]])
    np.testing.assert_array_equal(jax.jit(settle)(x), x)
    weights = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])
    gradient = jax.grad(lambda x: jnp.sum(weights * settle(x)))(x)
    np.testing.assert_array_equal(gradient, weights)


@pytest.mark.parametrize(("width", "out"), [(3, 7), (7, 3), (4, 4)])
def test_gradients_of_a_projection(width: int, out: int) -> None:
    generator = np.random.default_rng(0)
    x, kernel, weights = (
        jnp.asarray(generator.normal(size=shape), jnp.float32)
        for shape in ((2, 5, width), (width, out), (2, 5, out))
    )
    found = jax.grad(lambda x, k: jnp.sum(weights * project(x, k)), (0, 1))(x, kernel)
    expected = jax.grad(lambda x, k: jnp.sum(weights * (x @ k)), (0, 1))(x, kernel)
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, 1e-6)
    half = jax.grad(lambda k: jnp.sum(project(x.astype(k.dtype), k).astype(jnp.float32)))
    assert half(kernel.astype(jnp.bfloat16)).dtype == jnp.bfloat16
