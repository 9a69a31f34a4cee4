"""The tensors of `MarianMTModel` and our parameters, each from the other, bit for bit.

A PyTorch `Linear` holds its matrix as [out, in], we as [in, out]; queries, keys and values stand
in one matrix here. Keys have no bias here, because softmax never sees it: those of an imported
model are kept aside, so that an export gives them back. So is the bias of a banned padding.
"""

from collections.abc import Iterator, Mapping

import numpy as np

from nmt_ls.config import ModelConfig
from nmt_ls.errors import UserError
from nmt_ls.model.layers import sinusoidal_positions

Tensors = Mapping[str, np.ndarray]

BIAS = "final_logits_bias"
OUTPUT = "lm_head.weight"
NEVER = np.float32(-1e4)
"""The output bias of a banned padding: its probability is 0, also in half precision."""
_EMBEDDINGS = {
    side: f"model.{stack}.embed_tokens.weight"
    for side, stack in (("source", "encoder"), ("target", "decoder"))
}
_POSITIONS = {
    side: f"model.{stack}.embed_positions.weight"
    for side, stack in (("source", "encoder"), ("target", "decoder"))
}
_SHARED = "model.shared.weight"


# --- names -----------------------------------------------------------------------------------


def _products(config: ModelConfig) -> Iterator[tuple[str, tuple[str, ...]]]:
    """(our `Dense`, their `Linear`s that it consists of) for every layer."""
    for i in range(config.encoder_layers):
        ours, theirs = f"encoder.{i}", f"model.encoder.layers.{i}"
        yield from _attention(f"{ours}.attention", f"{theirs}.self_attn")
        yield from _feed_forward(ours, theirs)
    for i in range(config.decoder_layers):
        ours, theirs = f"decoder.{i}", f"model.decoder.layers.{i}"
        yield from _attention(f"{ours}.self_attention", f"{theirs}.self_attn")
        yield f"{ours}.cross_attention.query", (f"{theirs}.encoder_attn.q_proj",)
        pair = (f"{theirs}.encoder_attn.k_proj", f"{theirs}.encoder_attn.v_proj")
        yield f"{ours}.cross_attention.project", pair
        yield f"{ours}.cross_attention.output", (f"{theirs}.encoder_attn.out_proj",)
        yield from _feed_forward(ours, theirs)


def _attention(ours: str, theirs: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield f"{ours}.project", tuple(f"{theirs}.{part}_proj" for part in "qkv")
    yield f"{ours}.output", (f"{theirs}.out_proj",)


def _feed_forward(ours: str, theirs: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    yield f"{ours}.feed_forward.expand", (f"{theirs}.fc1",)
    yield f"{ours}.feed_forward.contract", (f"{theirs}.fc2",)


def _norms(config: ModelConfig) -> Iterator[tuple[str, str]]:
    """(our norm, theirs) for every layer."""
    for i in range(config.encoder_layers):
        for k, name in enumerate(("self_attn", "final")):
            yield f"encoder.{i}.norms.{k}", f"model.encoder.layers.{i}.{name}_layer_norm"
    for i in range(config.decoder_layers):
        for k, name in enumerate(("self_attn", "encoder_attn", "final")):
            yield f"decoder.{i}.norms.{k}", f"model.decoder.layers.{i}.{name}_layer_norm"


def _is_key(linear: str) -> bool:
    return linear.endswith(".k_proj")


def _aliases(tied: str) -> list[tuple[str, list[str]]]:
    """(our table, names that the one tensor may have) for what is tied as `tied_embeddings`."""
    source, target = _EMBEDDINGS["source"], _EMBEDDINGS["target"]
    if tied == "all":
        return [("target_embedding.table", [_SHARED, target, source, OUTPUT])]
    found = [("source_embedding.table", [source])]
    return [*found, ("target_embedding.table", [target, *([OUTPUT] if tied == "decoder" else [])])]


# --- theirs to ours --------------------------------------------------------------------------


class Given:
    """The tensors of a file, taken out one by one and checked."""

    def __init__(self, tensors: Tensors, where: str):
        self.left, self.where = dict(tensors), where

    def take(self, name: str, shape: tuple[int, ...], also: str = "") -> np.ndarray:
        """A float32 array of that shape.

        Raises:
          UserError: it is missing (as is what it may be called `also`), or has another shape.
        """
        if name not in self.left:
            raise UserError(f"{self.where} has no tensor {name}{also}")
        found = self.left.pop(name)
        if found.shape != shape:
            raise UserError(
                f"{self.where}: {name} has shape {list(found.shape)}; config.json makes it "
                f"{list(shape)}"
            )
        return found.astype(np.float32)


def positions_of(tensors: Tensors, width: int) -> tuple[str, int | None]:
    """(`model.positions`, rows of the tables or None) of a model with these position tables.

    `MarianMTModel` makes the paper's sinusoids where a file has none, and otherwise takes what is
    there: those of tensor2tensor, say, or learned ones.
    """
    tables = [tensors[name] for name in _POSITIONS.values() if name in tensors]
    if not tables:
        return "sinusoidal_paper", None
    rows = len(tables[0])
    for kind, table in (
        ("sinusoidal_paper", paper_table(rows, width)),
        ("sinusoidal", np.asarray(sinusoidal_positions(np.arange(rows), width))),
    ):
        # Float32 angles differ by half a unit in the last place: 3e-5 at position 512.
        if all(t.shape == table.shape and np.abs(t - table).max() < 1e-3 for t in tables):
            return kind, rows
    return "learned", rows


def paper_table(rows: int, width: int) -> np.ndarray:
    """The sinusoids of `MarianSinusoidalPositionalEmbedding`: float64, then rounded."""
    angles = np.arange(rows)[:, None] / np.power(10000, 2 * np.arange(width // 2) / width)
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1).astype(np.float32)


def params_of_marian(
    tensors: Tensors, config: ModelConfig, sizes: tuple[int, int], where: str, banned: int | None
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """(our parameters, by name what an export gives back: key biases, the output bias).

    Args:
      tensors: of the file.
      config: our settings of the model.
      sizes: vocabulary sizes of source and target.
      where: the folder, for messages.
      banned: the padding, where it is never put out: it gets no probability.

    Raises:
      UserError: a tensor is missing, has another shape, or is none of Marian's; it is named.
    """
    given, width = Given(tensors, where), config.width
    params: dict[str, np.ndarray] = {}
    kept: dict[str, np.ndarray] = {}
    for (ours, names), size in zip(
        _aliases(config.tied_embeddings),
        sizes[1:] if config.tied_embeddings == "all" else sizes,
        strict=True,
    ):
        params[ours] = _one_of(given, names, (size, width))
    if config.tied_embeddings == "none":
        params["output.kernel"] = given.take(OUTPUT, (sizes[1], width)).T.copy()
    bias = "output.bias" if config.tied_embeddings == "none" else "output_bias"
    params[bias] = np.zeros(sizes[1], np.float32)
    if BIAS in given.left:  # transformers makes zeros of a missing one
        params[bias] = given.take(BIAS, (1, sizes[1]))[0]
    if banned is not None:
        kept[BIAS] = params[bias].copy()
        params[bias][banned] = NEVER
    for ours, linears in _products(config):
        wide, narrow = config.feed_forward, width
        fan_out, fan_in = (wide, narrow) if linears[0].endswith("fc1") else (narrow, narrow)
        fan_in = wide if linears[0].endswith("fc2") else fan_in
        parts = [given.take(f"{name}.weight", (fan_out, fan_in)).T for name in linears]
        params[f"{ours}.kernel"] = np.concatenate(parts, axis=1)
        biases = {name: given.take(f"{name}.bias", (fan_out,)) for name in linears}
        params[f"{ours}.bias"] = np.concatenate(
            [bias for name, bias in biases.items() if not _is_key(name)]
        )
        kept |= {f"{name}.bias": b for name, b in biases.items() if _is_key(name)}
    for ours, theirs in _norms(config):
        params[f"{ours}.scale"] = given.take(f"{theirs}.weight", (width,))
        params[f"{ours}.bias"] = given.take(f"{theirs}.bias", (width,))
    for side, name in _POSITIONS.items():
        if config.positions == "learned":
            params[f"{side}_positions.table"] = given.take(name, (config.max_positions, width))
        else:
            given.left.pop(name, None)  # recognised: `positions_of`
    if given.left:
        names = sorted(given.left)
        more = f" (and {len(names) - 3} more)" if len(names) > 3 else ""
        raise UserError(
            f"{where} has tensors that are no part of the model in its config.json: "
            f"{', '.join(names[:3])}{more}"
        )
    return params, kept


def _one_of(given: Given, names: list[str], shape: tuple[int, ...]) -> np.ndarray:
    """The tied tensor that stands under one or several of these names."""
    there = [name for name in names if name in given.left]
    first, *others = there or names[:1]
    found = given.take(first, shape)
    for name in others if there else []:
        if not np.array_equal(given.take(name, shape), found):
            raise UserError(f"{given.where}: {name} and {first} differ, but config.json ties them")
    return found


# --- ours to theirs --------------------------------------------------------------------------


def marian_of_params(params: Tensors, config: ModelConfig, kept: Tensors) -> dict[str, np.ndarray]:
    """Tensors of `MarianMTModel` by name, tied ones once.

    Args:
      params: ours.
      config: their settings; what Marian cannot express is refused elsewhere.
      kept: key biases by name, zeros where one is missing; the output bias of before the import.
    """
    tensors = {names[0]: params[ours] for ours, names in _aliases(config.tied_embeddings)}
    size = len(params["target_embedding.table"])
    bias = params.get("output_bias", np.zeros(size, np.float32))
    if config.tied_embeddings == "none":
        tensors[OUTPUT], bias = params["output.kernel"].T, params["output.bias"]
    if BIAS in kept:
        bias = np.where(bias == NEVER, kept[BIAS], bias)
    tensors[BIAS] = bias[None]
    for ours, linears in _products(config):
        kernels = np.split(params[f"{ours}.kernel"], len(linears), axis=1)
        biased = [name for name in linears if not _is_key(name)]
        biases = dict(zip(biased, np.split(params[f"{ours}.bias"], len(biased)), strict=True))
        for name, kernel in zip(linears, kernels, strict=True):
            tensors[f"{name}.weight"] = kernel.T
            none = np.zeros(kernel.shape[1], np.float32)
            tensors[f"{name}.bias"] = biases.get(name, kept.get(f"{name}.bias", none))
    for ours, theirs in _norms(config):
        tensors[f"{theirs}.weight"] = params[f"{ours}.scale"]
        tensors[f"{theirs}.bias"] = params[f"{ours}.bias"]
    for side, name in _POSITIONS.items():
        if config.positions == "learned":
            tensors[name] = params[f"{side}_positions.table"]
        elif config.positions == "sinusoidal":
            steps = np.arange(config.max_positions)
            tensors[name] = np.asarray(sinusoidal_positions(steps, config.width))
    return tensors
