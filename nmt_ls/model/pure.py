"""The model as (graph definition, flat dictionary of arrays), so that every step is pure."""

from functools import lru_cache

import jax
from flax import nnx
from jaxtyping import Array

from nmt_ls.config import ModelConfig
from nmt_ls.model.transformer import Transformer

Params = dict[str, Array]
"""Parameter arrays by dotted path, such as `encoder.0.attention.project.kernel`."""


@lru_cache(maxsize=16)
def graph_of(config: ModelConfig, source_size: int, target_size: int) -> nnx.GraphDef:
    """The graph definition of a Transformer, without drawing a parameter."""
    model = nnx.eval_shape(lambda: Transformer(config, source_size, target_size, nnx.Rngs(0)))
    return nnx.split(model)[0]


@lru_cache(maxsize=16)
def _initialiser(config: ModelConfig, source_size: int, target_size: int):
    def draw(key):
        return params_of(Transformer(config, source_size, target_size, nnx.Rngs(params=key)))

    return jax.jit(draw)


def initial_params(config: ModelConfig, source_size: int, target_size: int, key: Array) -> Params:
    """Fresh parameters: a pure function of (config, sizes, key)."""
    return _initialiser(config, source_size, target_size)(key)


def params_of(model: Transformer) -> Params:
    """The model's parameters by dotted path."""
    flat = nnx.to_flat_state(nnx.state(model, nnx.Param))
    return {".".join(map(str, path)): variable[...] for path, variable in flat}


def model_of(graph: nnx.GraphDef, params: Params) -> Transformer:
    """The model with these parameters; free inside a traced function."""
    flat = [(_path(name), nnx.Param(value)) for name, value in params.items()]
    return nnx.merge(graph, nnx.from_flat_state(flat))


def ready_to_multiply(config: ModelConfig, params: Params) -> Params:
    """The parameters, those of products in the type that they are multiplied in.

    Each use would cast them to it anyway, in a loop at each of its steps. Not those of the output,
    whose bias stays float32 and whose matrix may be the embeddings: see `Transformer.decode_step`.
    """
    layers = {name.removesuffix(".kernel") for name in params if name.endswith(".kernel")}
    cast = {f"{layer}.{part}" for layer in layers - {"output"} for part in ("kernel", "bias")}
    return {name: x.astype(config.compute) if name in cast else x for name, x in params.items()}


def _path(name: str) -> tuple[str | int, ...]:
    return tuple(int(part) if part.isdigit() else part for part in name.split("."))
