"""The model as a graph definition and a flat dictionary of arrays."""

import dataclasses

import jax
import numpy as np
from tiny import MODEL, random_params

from nmt_ls.model import graph_of, initial_params, model_of, params_of


def test_there_and_back() -> None:
    params = random_params(MODEL, 11, 11)
    again = params_of(model_of(graph_of(MODEL, 11, 11), params))
    assert params.keys() == again.keys()
    for name in params:
        np.testing.assert_array_equal(again[name], params[name])
    assert "encoder.0.attention.project.kernel" in params
    assert "decoder.0.cross_attention.project.kernel" in params
    # JAX sorts dictionaries by name; checkpoints and updates go by name too.
    assert [type(n) for n in params] == [str] * len(params)


def test_more_than_ten_layers_keep_their_order() -> None:
    config = dataclasses.replace(MODEL, encoder_layers=12, width=4, heads=1, feed_forward=4)
    params = random_params(config, 11, 11)
    model = model_of(graph_of(config, 11, 11), dict(sorted(params.items())))
    for i, layer in enumerate(model.encoder):
        name = f"encoder.{i}.attention.project.kernel"
        np.testing.assert_array_equal(layer.attention.project.kernel[...], params[name])


def test_a_pure_function_of_the_key() -> None:
    config = dataclasses.replace(MODEL, width=64)
    first, again, other = (initial_params(config, 300, 300, jax.random.key(k)) for k in (5, 5, 6))
    for name, value in first.items():
        np.testing.assert_array_equal(value, again[name])
        if not np.array_equal(value, np.zeros_like(value) + value.ravel()[0]):
            assert not np.array_equal(value, other[name]), name


def test_initial_values() -> None:
    config = dataclasses.replace(MODEL, width=64)
    params = initial_params(config, 300, 300, jax.random.key(0))
    table = np.asarray(params["target_embedding.table"])
    assert abs(table.std() * 8 - 1) < 0.05  # N(0, 1/D)
    # Xavier for each of q, k and v as if it stood alone: uniform to √(6/(D + D)).
    kernel = np.asarray(params["encoder.0.attention.project.kernel"])
    assert kernel.shape == (64, 192)
    limit = (6 / 128) ** 0.5
    for part in np.split(kernel, 3, axis=1):
        assert 0.95 * limit < np.abs(part).max() <= limit
    for name, value in params.items():
        if name.endswith("bias"):
            assert (np.asarray(value) == 0).all(), name
        if name.endswith("scale"):
            assert (np.asarray(value) == 1).all(), name


def test_parameters_of_each_tying() -> None:
    def names(**fields: object) -> set[str]:
        config = dataclasses.replace(MODEL, **fields)
        params = random_params(config, 11, 11)
        return {n for n in params if not n.startswith(("encoder", "decoder"))}

    assert names(tied_embeddings="all") == {"target_embedding.table"}
    decoder = {"target_embedding.table", "source_embedding.table"}
    assert names(tied_embeddings="decoder") == decoder
    assert names(tied_embeddings="none") == decoder | {"output.kernel", "output.bias"}
