"""Encoder and decoding step as StableHLO programs (`jax.export`), to be run without this package.

Batch, source length, hypotheses and cache length are symbolic: one program for all of them.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from nmt_ls.errors import UserError
from nmt_ls.interchange.folders import whole_folder
from nmt_ls.interchange.plain import metadata_of
from nmt_ls.interchange.tensors import WEIGHTS, write_tensors
from nmt_ls.model import Memory, Params, graph_of, model_of
from nmt_ls.model.cache import Cache
from nmt_ls.training.runs import LoadedRun

PLATFORMS = ("cpu", "cuda", "tpu")
ENCODE, STEP = "encode.jax_export", "decode_step.jax_export"

_README = """# StableHLO programs of a translation model

Made by `nmt-ls export --to stablehlo` (checkpoint: {checkpoint}). Needs jax, flatbuffers and
safetensors. All ids are int32; b sentences of up to s source tokens, k hypotheses of each, up to
t target tokens.

| program | arguments | results |
|---|---|---|
| `{encode}` | parameters; source ids [b, s]; their lengths [b] | keys and values [b, s, {heads}, {size}] of each decoder layer |
| `{step}` | parameters; those keys and values; source lengths [b]; tokens [b, k]; position []; cache: keys [b·k, {heads}, {size}, t] and values [b·k, {heads}, t, {size}] of each decoder layer | logits [b, k, {vocab}] of the next token; the new cache |

The parameters are `model.safetensors` as a dictionary. A source sentence ends with id {eos};
decoding starts with id {bos} at position 0; padding is id {pad}. Greedy search:

```python
import jax, jax.numpy as jnp
from jax import export
from safetensors.numpy import load_file

params = load_file("model.safetensors")
encode, step = (
    jax.jit(export.deserialize(bytearray(open(f"{{name}}.jax_export", "rb").read())).call)
    for name in ("encode", "decode_step")
)

def translate(source, lengths, longest):
    memory = encode(params, source, lengths)
    keys = jnp.zeros((len(source), {heads}, {size}, longest), "{dtype}")
    values = jnp.zeros((len(source), {heads}, longest, {size}), "{dtype}")
    cache, tokens, found = [(keys, values)] * {layers}, jnp.full((len(source), 1), {bos}, "int32"), []
    for position in range(longest):
        logits, cache = step(params, memory, lengths, tokens, jnp.int32(position), cache)
        tokens = logits.argmax(-1).astype("int32")
        found.append(tokens[:, 0].tolist())
    return list(zip(*found))  # ids of each sentence; what follows the first {eos} is not its own
```
"""  # noqa: E501


def export_stablehlo(run: LoadedRun, output: Path) -> None:
    """Write both programs, the parameters they take and a README with a greedy search.

    Args:
      run: any.
      output: the folder that is made; it is there whole or not at all.

    Raises:
      UserError: flatbuffers is not installed, or `output` is there already.
    """
    try:
        import flatbuffers  # noqa: F401
    except ImportError:
        raise UserError("--to stablehlo needs flatbuffers: pip install flatbuffers") from None
    model, subwords = run.config.model, run.subwords
    with whole_folder(output, "--output") as beside:
        for name, program in programs(run).items():
            (beside / name).write_bytes(program.serialize())
        write_tensors(beside / WEIGHTS, run.params, metadata_of(run))
        text = _README.format(
            checkpoint=run.checkpoint, encode=ENCODE, step=STEP, heads=model.heads,
            size=model.width // model.heads, vocab=subwords.target_size,
            layers=model.decoder_layers, dtype=model.compute, bos=subwords.bos, eos=subwords.eos,
            pad=subwords.pad,
        )  # fmt: skip
        (beside / "README.md").write_text(text, encoding="utf-8")


def programs(run: LoadedRun) -> dict[str, Any]:
    """`jax.export.Exported` of encoder and decoding step, by file name."""
    # XLA's kernel is the one that there is on every platform.
    model = dataclasses.replace(run.config.model, attention="xla")
    graph = graph_of(model, run.subwords.source_size, run.subwords.target_size)
    heads, size = model.heads, model.width // model.heads

    # Plain lists and arrays, which whoever calls the programs has too.
    def encode(params: Params, source, lengths):
        return model_of(graph, params).encode(source, lengths).layers

    def step(params: Params, layers, lengths, tokens, position, cache):
        memory = Memory(layers, jnp.maximum(lengths, 1))
        keys = cache[0][0]
        # Each hypothesis has slots of its own, in one block of any length.
        alone = jnp.zeros((keys.shape[0], 1, keys.shape[-1]), jnp.int32)
        past = Cache([[pair] for pair in cache], alone)
        logits, new = model_of(graph, params).decode_step(memory, tokens, position, past)
        return logits, [layer[0] for layer in new.layers]

    b, s, k, t = jax.export.symbolic_shape("b, s, k, t")

    def ints(*shape):
        return jax.ShapeDtypeStruct(shape, jnp.int32)

    def pairs(*shapes):
        pair = tuple(jax.ShapeDtypeStruct(shape, jnp.dtype(model.compute)) for shape in shapes)
        return [pair for _ in range(model.decoder_layers)]

    memory = pairs(*[(b, s, heads, size)] * 2)
    cache = pairs((b * k, heads, size, t), (b * k, heads, t, size))

    params = {n: jax.ShapeDtypeStruct(v.shape, v.dtype) for n, v in run.params.items()}

    def exported(function, *arguments):
        return jax.export.export(jax.jit(function), platforms=PLATFORMS)(params, *arguments)

    return {
        ENCODE: exported(encode, ints(b, s), ints(b)),
        STEP: exported(step, memory, ints(b), ints(b, k), ints(), cache),
    }
