"""The Transformer in Flax NNX, split into a graph definition and pure state."""

from nmt_ls.model.dropout import Dropout, DropoutRates
from nmt_ls.model.pure import (
    Params,
    graph_of,
    initial_params,
    model_of,
    params_of,
    ready_to_multiply,
)
from nmt_ls.model.transformer import Cache, Memory, Transformer

__all__ = [
    "Cache",
    "Dropout",
    "DropoutRates",
    "Memory",
    "Params",
    "Transformer",
    "graph_of",
    "initial_params",
    "model_of",
    "params_of",
    "ready_to_multiply",
]
