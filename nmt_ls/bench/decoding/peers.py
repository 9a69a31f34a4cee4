"""Other translators, where they are installed, each in a process of its own.

A peer is given the folder of a model that it can load, or none: then it has random weights of the
same shapes, which cost the same. It computes on the GPU where its own build finds one.
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

from nmt_ls.bench.machine import PeerFailed, timed

CTRANSLATE2 = "CTranslate2, float32"
HUGGING_FACE = "Hugging Face generate, float32"


class PeerTask(NamedTuple):
    """What a peer does: sentences of ids into so many tokens each, or up to their ends."""

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
    """Of each output, end-of-sentence included; 0: it ends where the model says so."""
    eos: int
    pad: int
    folder: Path | None = None
    """The peer's model; None: random weights."""
    pieces: tuple[list[str], list[str]] | None = None
    """With a folder: what it calls the ids of source and target."""
    longest: int = 0
    """tokens=0: where an output ends at the latest, end-of-sentence included."""
    length_alpha: float = 1.0
    """A score is log p over the number of tokens to this power."""
    never: tuple[int, ...] = ()
    """With a folder: ids that are not put out."""
    compute: str = "float32"
    """Or bfloat16."""

    @property
    def limits(self) -> tuple[int, int]:
        """Fewest and most tokens of an output, end-of-sentence included."""
        return (self.tokens, self.tokens) if self.tokens else (1, self.longest)


class Peer(NamedTuple):
    """A translator that is ready."""

    translate: Callable[[], Any]
    """All sentences, once."""
    ids: Callable[[Any], list[list[int]]]
    """What `translate` returned as ids in the order of the sentences, without end-of-sentence."""
    device: str
    """cpu or cuda."""


def installed() -> list[str]:
    """Names of the peers that could be measured here."""
    return [name for name, (packages, _) in _PEERS.items() if all(map(find_spec, packages))]


def packages_of(names: list[str]) -> tuple[str, ...]:
    """What the peers stand on, for the list of versions."""
    return tuple(dict.fromkeys(p for name in names for p in _PEERS[name][0]))


class PeerWorker:
    """Runs a peer when asked: its threads and XLA's would wait for each other in one process.

    Raises:
      PeerFailed: by all that it is asked: it cannot be had on this machine, or its process ended.
    """

    def __init__(self, name: str, task: PeerTask):
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        self._process = context.Process(target=_loop, args=(theirs, name, task), daemon=True)
        self._process.start()
        theirs.close()

    def run(self) -> float:
        """Seconds of one translation of all sentences."""
        return self._ask("run")

    def outputs(self) -> list[list[int]]:
        """Ids of the translations of the last run, without end-of-sentence."""
        return self._ask("outputs")

    def device(self) -> str:
        """Where it computes: cpu or cuda."""
        return self._ask("device")

    def _ask(self, what: str) -> Any:
        try:
            self._ours.send(what)
            answer = self._ours.recv()
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._process.join(10)
            raise PeerFailed(f"its process ended, status {self._process.exitcode}") from None
        if isinstance(answer, PeerFailed):
            raise answer
        return answer

    def close(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.join(10)


def _loop(pipe: Connection, name: str, task: PeerTask) -> None:
    made, found = list[Peer](), list[Any]()

    def run() -> None:
        found[:] = [made[0].translate()]

    while True:
        try:
            asked = pipe.recv()
        except EOFError:
            return
        try:
            made = made or [_PEERS[name][1](task)]
            peer = made[0]
            if asked == "run":
                answer: Any = timed(run)
            else:
                answer = peer.device if asked == "device" else peer.ids(found[0])
        except Exception as error:  # a type that it cannot compute in, a library that it lacks
            why = " ".join(str(error).split())[:300] or type(error).__name__
            pipe.send(PeerFailed(why))
            return  # with all the memory that it holds
        pipe.send(answer)


def _ctranslate2(task: PeerTask) -> Peer:
    import ctranslate2

    on_gpu = ctranslate2.get_cuda_device_count() > 0
    with tempfile.TemporaryDirectory(prefix="nmt_ls_bench_") as random:
        folder = task.folder or _random_ctranslate2(task, Path(random))
        translator = ctranslate2.Translator(
            str(folder), device="cuda" if on_gpu else "cpu", compute_type=task.compute,
            inter_threads=1, intra_threads=os.cpu_count() or 1,
        )  # fmt: skip
    shortest, longest = task.limits
    # end-of-sentence does not count in its limits.
    options: dict[str, Any] = {
        "beam_size": task.beam,
        "max_batch_size": task.batch_sentences,
        "length_penalty": task.length_alpha,
        "min_decoding_length": shortest - 1,
        "max_decoding_length": longest - 1,
        "max_input_length": 0,  # by default it cuts sources silently
    }
    if task.pieces is None:
        names = [_piece(i) for i in range(task.vocab_size)]
        source = [[names[i] for i in ids[:-1]] + ["</s>"] for ids in task.source_ids]
    else:  # an exported model adds the end itself
        named, names = task.pieces
        source = [[named[i] for i in ids[:-1]] for ids in task.source_ids]
    if task.never:
        options["suppress_sequences"] = [[names[i]] for i in task.never]
    numbers = {name: i for i, name in enumerate(names)}
    return Peer(
        lambda: translator.translate_batch(source, **options),
        lambda found: [[numbers[piece] for piece in one.hypotheses[0]] for one in found],
        translator.device,
    )


def _piece(index: int) -> str:
    return {0: "<blank>", 1: "<unk>", 2: "<s>", 3: "</s>"}.get(index, f"p{index}")


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
    pieces = [_piece(i) for i in range(size)]
    spec.register_source_vocabulary(pieces)
    spec.register_target_vocabulary(pieces)
    spec.validate()
    spec.save(str(folder))
    return folder


def _hugging_face(task: PeerTask) -> Peer:
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
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.eval().to(device, getattr(torch, task.compute))
    model.generation_config.max_length = None  # it would warn of two limits
    order = sorted(range(len(task.source_ids)), key=lambda i: -len(task.source_ids[i]))
    batches = []
    for first in range(0, len(order), task.batch_sentences):
        rows = [task.source_ids[i] for i in order[first : first + task.batch_sentences]]
        ids = torch.full((len(rows), len(rows[0])), task.pad)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
        batches.append((ids.to(device), (ids != task.pad).long().to(device)))
    shortest, longest = task.limits
    banned = {"bad_words_ids": [[i] for i in task.never]} if task.never else {}

    def translate() -> list[list[int]]:
        found = []
        with torch.inference_mode():
            for ids, mask in batches:
                outputs = model.generate(
                    input_ids=ids, attention_mask=mask, num_beams=task.beam, do_sample=False,
                    min_new_tokens=shortest, max_new_tokens=longest,
                    length_penalty=task.length_alpha, **banned,
                )  # fmt: skip
                found += outputs.tolist()
        return found

    def in_order(found: list[list[int]]) -> list[list[int]]:
        placed: list[list[int]] = [[]] * len(found)
        for i, row in zip(order, found, strict=True):
            after = row[1:]  # what decoding starts with is not said
            placed[i] = after[: after.index(task.eos)] if task.eos in after else after
        return placed

    return Peer(translate, in_order, device)


_PEERS: Mapping[str, tuple[tuple[str, ...], Callable[[PeerTask], Peer]]] = {
    CTRANSLATE2: (("ctranslate2",), _ctranslate2),
    HUGGING_FACE: (("torch", "transformers"), _hugging_face),
}
