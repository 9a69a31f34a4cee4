"""Memory and speed of translating a long file: neither may depend on how long it is."""

import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from nmt_ls.bench.decoding.model import TINY, make_problem
from nmt_ls.bench.machine import rss_anon
from nmt_ls.decoding.files import translate_lines
from nmt_ls.decoding.translator import Translation, Translator

_TEXTS = 997
"""Different lines, said again and again; a prime, so that blocks differ."""


class _Watched(Translator):
    """Notes time and memory after each block of lines."""

    def watch(self) -> None:
        self.blocks: list[tuple[int, float, int]] = []
        """Lines so far, seconds, bytes of anonymous memory."""
        self._start = time.perf_counter()

    def translate(self, sentences, **options) -> list[Translation]:
        found = super().translate(sentences, **options)
        lines = (self.blocks[-1][0] if self.blocks else 0) + len(sentences)
        self.blocks.append((lines, time.perf_counter() - self._start, rss_anon() or 0))
        return found


def measure_lines(lines: int, *, beam: int = 5, batch_sentences: int = 64) -> dict[str, Any]:
    """Translates so many short lines from a file into a file, with a tiny random model.

    Returns:
      lines, seconds, blocks (lines so far, seconds, bytes of anonymous memory);
      bytes_per_line: the slope of memory over the second half of the blocks, by least squares;
      None where /proc does not tell; rates, fastest: lines per second of the two halves, in the
      median block and in the fastest.
    """
    problem = make_problem(
        _TEXTS, beam=beam, batch_sentences=batch_sentences, tokens=8, model=TINY, vocab_size=500
    )
    ours = problem.translator()
    translator = _Watched([problem.model], [problem.params], problem.subwords, ours.decoding)
    with tempfile.TemporaryDirectory(prefix="nmt_ls_bench_") as folder:
        source, output = Path(folder) / "source", Path(folder) / "output"
        with source.open("w", encoding="utf-8") as file:
            file.writelines(problem.sentences[i % _TEXTS] + "\n" for i in range(lines))
        translator.watch()
        translate_lines(translator, source, output)
        with output.open(encoding="utf-8") as file:
            written = sum(1 for _ in file)
    if written != lines:
        raise RuntimeError(f"{lines} lines in, {written} out")
    blocks = translator.blocks
    done, seconds, memory = (np.array(column, float) for column in zip(*blocks, strict=True))
    middle = len(blocks) // 2
    slope = None
    if len(blocks) - middle > 1 and memory.any():
        slope = float(np.polyfit(done[middle:], memory[middle:], 1)[0])
    # The first block compiles; the fastest ones are those that nothing else slowed down.
    of_blocks = np.diff(done) / np.diff(seconds)
    rates, fastest = [], []
    for half in (of_blocks[:middle], of_blocks[middle:]):
        if len(half):
            rates.append(float(np.median(half)))
            fastest.append(float(np.max(half)))
    return {
        "lines": lines,
        "seconds": float(seconds[-1]),
        "blocks": blocks,
        "bytes_per_line": slope,
        "rates": rates,
        "fastest": fastest,
    }


def describe_lines(found: dict[str, Any]) -> str:
    """The result of `measure_lines` as text."""
    slope, blocks = found["bytes_per_line"], found["blocks"]
    rates, fastest = (
        " and ".join(f"{rate:,.0f}" for rate in found[name]) or "unknown"
        for name in ("rates", "fastest")
    )
    return (
        f"{found['lines']:,} lines from file to file, a tiny random model: {found['seconds']:.0f} s"
        f"\nlines/s of the first and the second half: {rates} in the median block of 4,096, "
        f"{fastest} in the fastest\n"
        f"anonymous memory after the first block {blocks[0][2] / 1e6:,.1f} MB, after the last "
        f"{blocks[-1][2] / 1e6:,.1f} MB;\nits slope over the second half: "
        f"{'unknown' if slope is None else f'{slope:.1f} bytes per line'}"
    )
