"""The loss by torch, where it is installed, in a process of its own."""

import multiprocessing
import os
from multiprocessing.connection import Connection

import numpy as np

from nmt_ls.bench.machine import timed


def example_arrays(rows: int, width: int, vocab_size: int) -> tuple[np.ndarray, ...]:
    """hidden `[N, D]`, embedding `[V, D]`, bias `[V]`, labels `[N]`: the same for all peers."""
    random = np.random.default_rng(0)
    hidden = random.standard_normal((rows, width), np.float32)
    embedding = random.standard_normal((vocab_size, width), np.float32) * np.float32(width**-0.5)
    labels = random.integers(vocab_size, size=rows, dtype=np.int32)
    return hidden, embedding, np.zeros(vocab_size, np.float32), labels


class TorchWorker:
    """Runs torch when asked: its threads and XLA's would wait for each other in one process."""

    def __init__(self, rows: int, width: int, vocab_size: int, dtype: str, epsilon: float):
        context = multiprocessing.get_context("spawn")
        self._ours, theirs = context.Pipe()
        arguments = (theirs, rows, width, vocab_size, dtype, epsilon)
        self._process = context.Process(target=_torch_loop, args=arguments, daemon=True)
        self._process.start()
        theirs.close()

    def run(self) -> float:
        """Seconds of one forward and backward pass."""
        self._ours.send("run")
        return self._ours.recv()

    def device(self) -> str:
        """Where it computes: cpu or cuda."""
        self._ours.send("device")
        return self._ours.recv()

    def close(self) -> None:
        """End the process."""
        self._ours.close()
        self._process.join(10)


def _torch_loop(
    pipe: Connection, rows: int, width: int, vocab_size: int, dtype: str, epsilon: float
) -> None:
    import torch
    from torch.nn import functional

    torch.set_num_threads(os.cpu_count() or 1)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    kind = getattr(torch, dtype)
    hidden, embedding, bias, labels = (
        torch.from_numpy(x).to(device) for x in example_arrays(rows, width, vocab_size)
    )
    leaves = [x.to(kind).requires_grad_() for x in (hidden, embedding, bias)]

    def once() -> None:
        for leaf in leaves:
            leaf.grad = None
        logits = functional.linear(*leaves)
        functional.cross_entropy(logits, labels.long(), label_smoothing=epsilon).backward()
        if device == "cuda":
            torch.cuda.synchronize()

    while True:
        try:
            asked = pipe.recv()
        except EOFError:
            return
        pipe.send(device if asked == "device" else timed(once))
