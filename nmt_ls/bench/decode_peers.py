"""Other translators, where they are installed, each in a process of its own.

A peer is given the folder of a model that it can load, or none: then it has random weights of the
same shapes, which cost the same.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nmt_ls.bench.machine import timed

CTRANSLATE2 = "CTranslate2, float32"
HUGGING_FACE = "Hugging Face generate, float32"


class PeerTask(NamedTuple):
    """What a peer does: so many sentences of ids into so many tokens each."""

    source_ids: list[list[int]]
    """End-of-sentence included."""
    vocab_size: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    beam: int
    batch_sentences: int
    tokens: int
    """Of each output, end-of-sentence included."""
    eos: int
    pad: int
    folder: Path | None = None
    """The peer's model; None: random weights."""


def installed() -> list[str]:
    """Names of the peers that could be measured here."""
    return [name for name, (packages, _) in _PEERS.items() if all(map(find_spec, packages))]


def packages_of(names: list[str]) -> tuple[str, ...]:
    """What the peers stand on, for the list of versions."""
    return tuple(dict.fromkeys(p for name in names for p in _PEERS[name][0]))


class PeerWorker:
    """Runs a peer when asked: its threads and XLA's would wait for each other in one process."""

    def __init__(self, name: str, task: PeerTask):
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_loop, args=(theirs, name, task), daemon=True)
        self._process.start()
        theirs.close()

    def run(self) -> float:
        """Seconds of one translation of all sentences."""
        self._ours.send("run")
        return self._ours.recv()

    def close(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.join(10)


def _loop(pipe: Connection, name: str, task: PeerTask) -> None:
    translate = _PEERS[name][1](task)
    while True:
        try:
            pipe.recv()
        except EOFError:
            return
        pipe.send(timed(translate))


def _ctranslate2(task: PeerTask) -> Callable[[], Any]:
    import ctranslate2

    with tempfile.TemporaryDirectory(prefix="nmt_ls_bench_") as random:
        folder = task.folder or _random_ctranslate2(task, Path(random))
        translator = ctranslate2.Translator(
            str(folder), device="cpu", compute_type="float32", inter_threads=1,
            intra_threads=os.cpu_count() or 1,
        )  # fmt: skip
    # end-of-sentence does not count in its limits.
    options = {
        "beam_size": task.beam,
        "max_batch_size": task.batch_sentences,
        "min_decoding_length": task.tokens - 1,
        "max_decoding_length": task.tokens - 1,
    }
    source = [[f"p{i}" for i in ids[:-1]] + ["</s>"] for ids in task.source_ids]
    return lambda: translator.translate_batch(source, **options)


def _random_ctranslate2(task: PeerTask, folder: Path) -> Path:
    from ctranslate2.specs import TransformerSpec

    random = np.random.default_rng(0)
    width, inner, size = task.width, task.feed_forward, task.vocab_size
    table = random.normal(size=(size, width), scale=width**-0.5).astype(np.float32)
    spec = TransformerSpec.from_config(task.layers, task.heads, pre_norm=True)

    def dense(layer: Any, fan_in: int, fan_out: int) -> None:
        weight = random.normal(size=(fan_out, fan_in), scale=fan_in**-0.5)
        layer.weight, layer.bias = weight.astype(np.float32), np.zeros(fan_out, np.float32)

    def norm(layer: Any) -> None:
        layer.gamma, layer.beta = np.ones(width, np.float32), np.zeros(width, np.float32)

    def attention(block: Any, *outputs: int) -> None:
        norm(block.layer_norm)
        for layer, fan_out in zip(block.linear, outputs, strict=True):
            dense(layer, width, fan_out)

    for side in (spec.encoder, spec.decoder):
        embeddings = side.embeddings
        (embeddings[0] if isinstance(embeddings, list) else embeddings).weight = table
        side.scale_embeddings = True
        side.position_encodings.encodings = random.normal(size=(512, width)).astype(np.float32)
        norm(side.layer_norm)
        for block in side.layer:
            attention(block.self_attention, 3 * width, width)
            norm(block.ffn.layer_norm)
            dense(block.ffn.linear_0, width, inner)
            dense(block.ffn.linear_1, inner, width)
    for block in spec.decoder.layer:
        attention(block.attention, width, 2 * width, width)
    spec.decoder.projection.weight = table
    spec.decoder.projection.bias = np.zeros(size, np.float32)
    pieces = ["<blank>", "<unk>", "<s>", "</s>", *(f"p{i}" for i in range(4, size))]
    spec.register_source_vocabulary(pieces)
    spec.register_target_vocabulary(pieces)
    spec.validate()
    spec.save(str(folder))
    return folder


def _hugging_face(task: PeerTask) -> Callable[[], Any]:
    import torch
    from transformers import MarianConfig, MarianMTModel

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    if task.folder is not None:
        model = MarianMTModel.from_pretrained(task.folder)
    else:
        model = MarianMTModel(
            MarianConfig(
                vocab_size=task.vocab_size, d_model=task.width, max_position_embeddings=512,
                encoder_layers=task.layers, decoder_layers=task.layers,
                encoder_attention_heads=task.heads, decoder_attention_heads=task.heads,
                encoder_ffn_dim=task.feed_forward, decoder_ffn_dim=task.feed_forward,
                activation_function="relu", scale_embedding=True, pad_token_id=task.pad,
                eos_token_id=task.eos, forced_eos_token_id=task.eos,
                decoder_start_token_id=task.pad,
            )
        )  # fmt: skip
    model.eval()
    ordered = sorted(task.source_ids, key=len, reverse=True)
    batches = []
    for first in range(0, len(ordered), task.batch_sentences):
        rows = ordered[first : first + task.batch_sentences]
        ids = torch.full((len(rows), len(rows[0])), task.pad)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        batches.append((ids, (ids != task.pad).long()))

    def translate() -> None:
        with torch.inference_mode():
            for ids, mask in batches:
                model.generate(
                    input_ids=ids, attention_mask=mask, num_beams=task.beam, do_sample=False,
                    min_new_tokens=task.tokens, max_new_tokens=task.tokens,
                )  # fmt: skip

    return translate


_PEERS: Mapping[str, tuple[tuple[str, ...], Callable[[PeerTask], Callable[[], Any]]]] = {
    CTRANSLATE2: (("ctranslate2",), _ctranslate2),
    HUGGING_FACE: (("torch", "transformers"), _hugging_face),
}
