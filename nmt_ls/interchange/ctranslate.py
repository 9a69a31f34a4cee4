"""A run as a CTranslate2 model: the same weights in its layout, without a detour.

Source: CTranslate2's `specs/transformer_spec.py` (version 4.8, revision 7 of TransformerSpec).
"""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from nmt_ls.config import DecodingConfig, ModelConfig
from nmt_ls.data.vocabularies import LANGUAGE_CODE
from nmt_ls.errors import UserError
from nmt_ls.interchange.folders import whole_folder
from nmt_ls.interchange.marian_weights import NEVER
from nmt_ls.interchange.pieces import piece_list
from nmt_ls.interchange.search import power_of_length
from nmt_ls.model.layers import paper_positions, sinusoidal_positions
from nmt_ls.training.runs import LoadedRun

POSITIONS = 2048
"""Sinusoidal positions are written up to this many tokens; there it must end somewhere."""

_README = """# A CTranslate2 model

Made by `nmt-ls export --to ctranslate2` from the run {name} (checkpoint: {checkpoint}).

```python
{lines}
```

CTranslate2 adds the end of a source sentence itself. By default it cuts sources silently to 1,024
tokens and translations to 256. With `max_input_length=0` nothing is cut, and a source of more than
{positions} tokens is an error; `max_decoding_length` is the run's limit for its longest source.
`nmt-ls translate RUN --set decoding.stopping=first_k` searches alike.
"""

_WITH_PIECES = """import ctranslate2, sentencepiece as sp
model, source, target = ctranslate2.Translator("{folder}"), *(sp.SentencePieceProcessor(model_file=f"{folder}/{{side}}.spm") for side in ("source", "target"))
print([{decoded} for found in model.translate_batch({encoded}, {search})])"""  # noqa: E501

_ENCODED = 'source.encode(["A sentence."], out_type=str)'
_ENCODED_CODE = '[[{code}, *source.encode("A sentence.", out_type=str)]]'
"""Models for several languages are told by the first piece which one is wanted."""
_DECODED = "target.decode(found.hypotheses[0])"
_DECODED_LISTED = f'{_DECODED}.replace("▁", " ").strip()'
"""Pieces that only the other side's model knows come out as they are."""

_WITH_WORDS = """import ctranslate2
model = ctranslate2.Translator("{folder}")
print([" ".join(found.hypotheses[0]) for found in model.translate_batch(["A sentence .".split()], {search})])"""  # noqa: E501


def export_ctranslate2(run: LoadedRun, output: Path, quantization: str | None = None) -> None:
    """Write a folder that `ctranslate2.Translator` runs, the SentencePiece models beside it.

    Args:
      run: any.
      output: what is made; it is there whole or not at all.
      quantization: type of the weights, such as "int8"; None for float32.

    Raises:
      UserError: ctranslate2 is not installed, nor torch where it needs that, or `output` is there
        already.
    """
    try:
        import ctranslate2.specs  # noqa: F401
    except ImportError:
        raise UserError("--to ctranslate2 needs it: pip install ctranslate2") from None
    if quantization in ("bfloat16", "int8_bfloat16") and find_spec("torch") is None:
        raise UserError(
            f"--quantization {quantization}: ctranslate2 makes bfloat16 with torch; pip install "
            "torch, or choose another type"
        )
    spec = specification(run)
    spec.validate()
    spec.optimize(quantization=quantization)
    with whole_folder(output, "--output") as beside:
        spec.save(str(beside))
        folder, subwords, decoding = Path(output).name, run.subwords, run.config.decoding
        lines = _WITH_WORDS
        if not subwords.pretokenized:
            lines = _WITH_PIECES
            (beside / "target.spm").write_bytes(subwords.target_model)
            (beside / "source.spm").write_bytes(subwords.source_model or subwords.target_model)
        positions = len(_positions(run, "source"))
        search = (
            f"beam_size={decoding.beam}, length_penalty={power_of_length(decoding):g}, "
            f"max_input_length=0, max_decoding_length={_longest_output(decoding, positions)}"
        )
        if decoding.min_length:  # by default CTranslate2 has 1
            search += f", min_decoding_length={decoding.min_length}"
        if decoding.no_repeat_ngram:
            search += f", no_repeat_ngram_size={decoding.no_repeat_ngram}"
        if never := _never_said(run):
            search += f", suppress_sequences={never}"
        text = _README.format(
            name=run.config.name or run.run_dir.name,
            checkpoint=run.checkpoint,
            lines=lines.format(folder=folder, search=search, **_texts(run)),
            positions=positions,
        )
        (beside / "README.md").write_text(text, encoding="utf-8")


def _texts(run: LoadedRun) -> dict[str, str]:
    """How the README's lines make pieces of a text and a text of pieces."""
    if run.subwords.vocabulary is None:
        return {"encoded": _ENCODED, "decoded": _DECODED}
    code = next((p for p in piece_list(run.subwords, "source") if LANGUAGE_CODE.match(p)), None)
    encoded = _ENCODED if code is None else _ENCODED_CODE.format(code=json.dumps(code))
    return {"encoded": encoded, "decoded": _DECODED_LISTED}


def specification(run: LoadedRun) -> Any:
    """The run as a `ctranslate2.specs.TransformerSpec`, not yet validated."""
    from ctranslate2.specs import TransformerSpec, common_spec

    model, params = run.config.model, run.params
    kinds = common_spec.Activation
    spec = TransformerSpec.from_config(
        (model.encoder_layers, model.decoder_layers),
        model.heads,
        pre_norm=model.norm == "pre",
        activation={
            "relu": kinds.RELU,
            "gelu": kinds.GELUTanh,
            "gelu_exact": kinds.GELU,
            "swish": kinds.SWISH,
            "swiglu": kinds.SWISH,  # of the gate
        }[model.activation],
        ffn_glu=model.activation == "swiglu",
    )
    shared = model.tied_embeddings == "all"
    # Weights are quantised where they lie: tables are copied, as `_rows` copies matrices.
    spec.encoder.embeddings[0].weight = params[
        "target_embedding.table" if shared else "source_embedding.table"
    ].copy()
    spec.decoder.embeddings.weight = params["target_embedding.table"].copy()
    for side, stack in (("source", spec.encoder), ("target", spec.decoder)):
        stack.scale_embeddings = model.scale_embeddings
        stack.position_encodings.encodings = _positions(run, side)
        if model.norm == "pre":
            name = "encoder_norm" if side == "source" else "decoder_norm"
            _norm(stack.layer_norm, params, name)
    if model.tied_embeddings == "none":
        spec.decoder.projection.weight = _rows(params["output.kernel"])
        spec.decoder.projection.bias = params["output.bias"]
    else:
        spec.decoder.projection.weight = params["target_embedding.table"].copy()
        if model.output_bias:
            spec.decoder.projection.bias = params["output_bias"]
    if model.logit_softcap:
        spec.decoder.final_logit_softcapping = np.float32(model.logit_softcap)
    for i, layer in enumerate(spec.encoder.layer):
        _self_attention(layer.self_attention, params, f"encoder.{i}.attention")
        _norm(layer.self_attention.layer_norm, params, f"encoder.{i}.norms.0")
        _feed_forward(layer.ffn, params, f"encoder.{i}", 1, model)
    for i, layer in enumerate(spec.decoder.layer):
        _self_attention(layer.self_attention, params, f"decoder.{i}.self_attention")
        _norm(layer.self_attention.layer_norm, params, f"decoder.{i}.norms.0")
        _cross_attention(layer.attention, params, f"decoder.{i}.cross_attention")
        _norm(layer.attention.layer_norm, params, f"decoder.{i}.norms.1")
        _feed_forward(layer.ffn, params, f"decoder.{i}", 2, model)
    _vocabulary(spec, run)
    return spec


def _vocabulary(spec: Any, run: LoadedRun) -> None:
    subwords = run.subwords
    source, target = piece_list(subwords, "source"), piece_list(subwords, "target")
    spec.register_source_vocabulary(source)
    spec.register_target_vocabulary(target)
    spec.config.unk_token = source[subwords.unk]
    spec.config.bos_token = target[subwords.bos]
    spec.config.eos_token = target[subwords.eos]
    spec.config.decoder_start_token = target[subwords.bos]
    spec.config.add_source_eos = True
    spec.config.layer_norm_epsilon = run.config.model.norm_epsilon


def _positions(run: LoadedRun, side: str) -> np.ndarray:
    """[T, D] position encodings of a side."""
    model = run.config.model
    if model.positions == "learned":
        return run.params[f"{side}_positions.table"]
    encode = paper_positions if model.positions == "sinusoidal_paper" else sinusoidal_positions
    return np.asarray(encode(np.arange(POSITIONS), model.width))


def _longest_output(decoding: DecodingConfig, positions: int) -> int:
    """Tokens of the longest output for the longest source, the end not counted."""
    longest = min(decoding.max_source_length, positions)
    limit = int(decoding.max_length_ratio * longest) + decoding.max_length_extra
    return min(limit, positions) - 1


def _never_said(run: LoadedRun) -> list[list[str]]:
    """Padding and start, which our search never puts out, unless the model gives them nothing."""
    names, none = piece_list(run.subwords, "target"), np.zeros(run.subwords.target_size)
    bias = run.params.get("output.bias", run.params.get("output_bias", none))
    ids = sorted({run.subwords.pad, run.subwords.bos})
    return [[names[i]] for i in ids if bias[i] > NEVER / 2]


def _rows(kernel: np.ndarray) -> np.ndarray:
    """[in, out] as CTranslate2's [out, in], always a copy."""
    return np.array(kernel.T, order="C")


def _linear(spec: Any, params: Mapping[str, np.ndarray], name: str) -> None:
    spec.weight, spec.bias = _rows(params[f"{name}.kernel"]), params[f"{name}.bias"]


def _norm(spec: Any, params: Mapping[str, np.ndarray], name: str) -> None:
    spec.gamma, spec.beta = params[f"{name}.scale"], params[f"{name}.bias"]


def _self_attention(spec: Any, params: Mapping[str, np.ndarray], name: str) -> None:
    queries, values = np.split(params[f"{name}.project.bias"], 2)
    spec.linear[0].weight = _rows(params[f"{name}.project.kernel"])
    spec.linear[0].bias = np.concatenate([queries, np.zeros_like(queries), values])
    _linear(spec.linear[1], params, f"{name}.output")


def _cross_attention(spec: Any, params: Mapping[str, np.ndarray], name: str) -> None:
    _linear(spec.linear[0], params, f"{name}.query")
    values = params[f"{name}.project.bias"]
    spec.linear[1].weight = _rows(params[f"{name}.project.kernel"])
    spec.linear[1].bias = np.concatenate([np.zeros_like(values), values])
    _linear(spec.linear[2], params, f"{name}.output")


def _feed_forward(
    spec: Any, params: Mapping[str, np.ndarray], layer: str, norm: int, model: ModelConfig
) -> None:
    _norm(spec.layer_norm, params, f"{layer}.norms.{norm}")
    kernel = _rows(params[f"{layer}.feed_forward.expand.kernel"])
    bias = params[f"{layer}.feed_forward.expand.bias"]
    parts = [spec.linear_0]
    if model.activation == "swiglu":
        parts.append(spec.linear_0_noact)
    for part, rows, offset in zip(
        parts, np.split(kernel, len(parts)), np.split(bias, len(parts)), strict=True
    ):
        part.weight, part.bias = rows, offset
    _linear(spec.linear_1, params, f"{layer}.feed_forward.contract")
