"""Other trainers of the same Transformer, where they are installed, each in a process of its own.

This file runs as `python -m nmt_ls.bench.training.peers NAME FOLDER`, by an interpreter that need
not have jax: JoeyNMT wants an environment of its own. So it imports nothing of ours but `machine`.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np

import nmt_ls
from nmt_ls.bench.machine import timed

EAGER = "torch nn.Transformer, eager"
COMPILED = "torch nn.Transformer, compiled"
OUR_DROPOUT = "torch nn.Transformer, eager, dropout as ours"
HUGGING_FACE = "Hugging Face Marian"
JOEYNMT = "JoeyNMT, the same batches"
JOEYNMT_OWN = "JoeyNMT, the same sentences in its own batches"

LABEL_SMOOTHING = 0.1


class Setting(NamedTuple):
    """A model and its training: all that is not in the batches. JSON."""

    vocab_size: int
    layers: int
    width: int
    heads: int
    feed_forward: int
    dropout: float
    pad: int
    bos: int
    eos: int
    unk: int
    learning_rate: float
    beta1: float
    beta2: float
    epsilon: float
    weight_decay: float
    clip_norm: float
    compute: str
    """float32, or bfloat16 by autocast."""
    batch_tokens: int


class Peer(NamedTuple):
    """What a peer gives: a step, and its parameters."""

    step: Callable[[Any], Any]
    """One update on a prepared batch; returns the loss of a token, as a tensor."""
    prepare: Callable[..., Any]
    """Arrays (source, its lengths, target, its lengths) → what `step` takes; not timed."""
    parameters: int
    device: str
    """cpu or cuda."""


PEERS = {
    "torch": EAGER,
    "torch_as_ours": OUR_DROPOUT,
    "compiled": COMPILED,
    "marian": HUGGING_FACE,
    "joeynmt": JOEYNMT,
    "joeynmt_own": JOEYNMT_OWN,
}
"""By the names that the command line takes."""


def installed(joeynmt: Path | None = None) -> list[str]:
    """Those of `PEERS` that could be measured here.

    Args:
      joeynmt: the interpreter of an environment that has JoeyNMT.
    """
    needed: dict[str, tuple[str, ...]] = dict.fromkeys(
        ("torch", "torch_as_ours", "compiled"), ("torch",)
    )
    needed["marian"] = ("torch", "transformers")
    found = [peer for peer, packages in needed.items() if all(map(find_spec, packages))]
    return found + (["joeynmt", "joeynmt_own"] if joeynmt is not None else [])


def write_task(folder: Path, setting: Setting, batches: Sequence[Sequence[np.ndarray]]) -> None:
    """The files that a peer's process reads."""
    (folder / "setting.json").write_text(json.dumps(setting._asdict()))
    arrays = {f"{i}_{j}": x for i, batch in enumerate(batches) for j, x in enumerate(batch)}
    np.savez(folder / "batches.npz", **arrays)  # type: ignore[arg-type]


def recut(
    batches: Sequence[Sequence[np.ndarray]], batch_tokens: int, pad: int
) -> list[list[np.ndarray]]:
    """The sentences of all batches, in random order, in batches as JoeyNMT's sampler cuts them.

    A batch is full when its rows times the longest sentence of either side, with its end, reach
    `batch_tokens` (`joeynmt.datasets.TokenBatchSampler`; "no bucketing implemented").
    """
    sentences = [
        (source[:n], target[:m])
        for source_ids, source_lengths, target_ids, target_lengths in batches
        for source, n, target, m in zip(
            source_ids, source_lengths, target_ids, target_lengths, strict=True
        )
        if m
    ]
    cut: list[list[np.ndarray]] = []
    group: list[tuple[np.ndarray, np.ndarray]] = []
    longest = 0
    for i in np.random.default_rng(0).permutation(len(sentences)):
        group.append(sentences[i])
        longest = max(longest, *map(len, sentences[i]))
        if longest * len(group) >= batch_tokens:
            cut.append(_padded(group, pad))
            group, longest = [], 0
    return cut + ([_padded(group, pad)] if group else [])


def _padded(pairs: Sequence[tuple[np.ndarray, np.ndarray]], pad: int) -> list[np.ndarray]:
    found = []
    for side in zip(*pairs, strict=True):
        lengths = np.array([len(ids) for ids in side], np.int32)
        rows = np.full((len(side), np.max(lengths)), pad, np.int32)
        for row, ids in zip(rows, side, strict=True):
            row[: len(ids)] = ids
        found += [rows, lengths]
    return found


class PeerWorker:
    """Runs a peer when asked: its threads and XLA's would wait for each other in one process.

    Raises:
      ValueError: the peer's process ended, with the last line that it said.
    """

    def __init__(self, name: str, folder: Path, python: Path | None = None):
        self.name = name
        # At the end: what the other environment has is its own.
        ours = str(Path(nmt_ls.__file__).parent.parent)
        path = [p for p in (os.environ.get("PYTHONPATH"), ours) if p]
        self._errors = (folder / f"{abs(hash(name))}.log").open("w+")
        self._process = subprocess.Popen(
            [str(python or sys.executable), "-m", "nmt_ls.bench.training.peers", name, str(folder)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._errors, text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        )  # fmt: skip

    def about(self) -> dict[str, Any]:
        """`tokens` (real target tokens of all batches, as the peer counts them), `parameters`,
        `loss` (of a token, of the first batch before any update), `device` (cpu or cuda),
        `versions`."""
        return self._ask("about")

    def run(self) -> float:
        """Seconds of one update on each batch."""
        return self._ask("run")

    def _ask(self, question: str) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        answer = ""
        try:
            self._process.stdin.write(question + "\n")
            self._process.stdin.flush()
            answer = self._process.stdout.readline()
        except BrokenPipeError:
            pass
        if not answer:
            self._errors.seek(0)
            lines = self._errors.read().strip().splitlines() or ["without a word"]
            raise ValueError(f"{self.name} ended: {lines[-1]}")
        return json.loads(answer)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdout.close()
            self._process.stdin.close()
            self._process.wait(10)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._errors.close()


# --- in the peer's process -----------------------------------------------------------------------


def main(name: str, folder: Path) -> None:
    """Answers questions, a line each, until there are none."""
    # What libraries print is not an answer.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import torch

    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    setting = Setting(**json.loads((folder / "setting.json").read_text()))
    arrays = np.load(folder / "batches.npz")
    batches = [[arrays[f"{i}_{j}"] for j in range(4)] for i in range(len(arrays.files) // 4)]
    if name == JOEYNMT_OWN:
        batches = recut(batches, setting.batch_tokens, setting.pad)
    peer = _make(name, setting)
    prepared = [peer.prepare(*batch) for batch in batches]
    first = float(peer.step(prepared[0]))

    def run() -> None:
        for batch in prepared:
            peer.step(batch)
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    for question in sys.stdin:
        answer: Any = None
        if question.strip() == "run":
            answer = timed(run)
        else:
            answer = {
                "tokens": sum(int(batch[3].sum()) for batch in batches),
                "parameters": peer.parameters,
                "loss": first,
                "device": peer.device,
                "versions": {"torch": torch.__version__},
            }
        print(json.dumps(answer), file=answers, flush=True)


def _make(name: str, setting: Setting) -> Peer:
    if name in (JOEYNMT, JOEYNMT_OWN):
        from nmt_ls.bench.training.joeynmt import joeynmt

        return joeynmt(setting)
    from nmt_ls.bench.training.torch_models import hugging_face, nn_transformer

    if name == HUGGING_FACE:
        return hugging_face(setting)
    return nn_transformer(setting, name == COMPILED, as_ours=name == OUR_DROPOUT)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
