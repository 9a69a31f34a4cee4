"""How fast this machine makes batches from a tokenised table, and in how much memory."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int
from tabulate import tabulate

from nmt_ls.bench.machine import PeakMemory, about, describe_machine
from nmt_ls.data.batches import Batches
from nmt_ls.data.cache import ROWS, read_table, write_table
from nmt_ls.data.filtering import FEATURES

REPEATS = 5
"""The steps are timed in so many stretches, and the median is shown."""

TARGET_TOKENS_PER_SECOND = 1_000_000
"""Well above what any model takes in on the machines that this is for."""

MEMORY_GB = 1.5
"""Anonymous memory that 5 million pairs may take."""


class Lengths(NamedTuple):
    """Lengths of a corpus: log-normal on the target side, the source's near them."""

    name: str
    median: float
    """Target tokens, end-of-sentence included."""
    spread: float
    """Standard deviation of log target tokens."""
    ratio_spread: float
    """Standard deviation of log(source tokens / target tokens)."""
    longest: int
    vocab_size: int


# Fitted by eye to bpe10k of Multi30k, and to newstest2014 with a third more subwords than words.
CORPORA = (
    Lengths("captions (Multi30k)", 14, 0.32, 0.16, 64, 8_000),
    Lengths("news (WMT)", 24, 0.56, 0.20, 128, 32_000),
)


def bench_data(
    *, pairs: int = 200_000, steps: int = 2_000, batch_tokens: int = 4096, seed: int = 0
) -> dict[str, Any]:
    """Makes synthetic tokenised tables and times the batches of their first steps.

    The tables lie in a temporary folder (`$TMPDIR`), are written as the tokenised corpus is, and
    have random ids and no text.

    Args:
      pairs: sentence pairs of each table.
      steps: batches that are made of each, from step 0 on, so that drawing the order of the
        sentences counts as it does in training.
      batch_tokens: target positions of a batch.
      seed: draws lengths, ids and the order.

    Returns:
      machine, versions, settings; `corpora`: for each kind of corpus its name, pairs,
      target_tokens (of the table), table_bytes, write_seconds, plan_seconds (mapping the table,
      choosing shapes), batches_per_second, target_tokens_per_second (real ones; each the median
      over repeats; all of them in repeats), real_share (of source and target positions),
      rss_anon_bytes (its peak while planning and batching; None where /proc does not tell) and
      rss_anon_before_bytes.

    Raises:
      ValueError: no pairs, or fewer steps than repeats.
    """
    if pairs < 1:
        raise ValueError(f"pairs={pairs}: at least 1")
    if steps < REPEATS:
        raise ValueError(f"steps={steps}: at least {REPEATS}, the number of repeats")
    settings = {"pairs": pairs, "steps": steps, "batch_tokens": batch_tokens, "seed": seed}
    return {
        **about(settings, ("numpy", "pyarrow", "datasets")),
        "corpora": [_measure(lengths, **settings) for lengths in CORPORA],
    }


def describe(result: dict[str, Any]) -> str:
    """The result of `bench_data` as text: a table, and what it was measured on."""
    rows = []
    for corpus in result["corpora"]:
        peak = corpus["rss_anon_bytes"]
        rows.append(
            [
                corpus["name"],
                f"{corpus['target_tokens_per_second']:,.0f}",
                f"{corpus['batches_per_second']:,.0f}",
                f"{corpus['real_share']:.1%}",
                f"{corpus['plan_seconds']:.2f}",
                "unknown" if peak is None else f"{peak / 1e9:.2f}",
            ]
        )
    headers = [
        "lengths as in",
        "target tokens/s",
        "batches/s",
        "real positions",
        "plan (s)",
        "RssAnon (GB)",
    ]
    table = tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * 5))
    settings = result["settings"]
    return (
        f"Host batches from the tokenised table: {settings['pairs']:,} pairs, batches of "
        f"{settings['batch_tokens']:,} target positions,\n{settings['steps']:,} steps, median of "
        f"{REPEATS} stretches (asked for: {TARGET_TOKENS_PER_SECOND:,} target tokens/s; "
        f"{MEMORY_GB:g} GB for 5,000,000 pairs)\n\n{table}\n\n"
        f"{describe_machine(result)}"
    )


def _measure(
    lengths: Lengths, *, pairs: int, steps: int, batch_tokens: int, seed: int
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="nmt_ls_bench_") as folder:
        path = Path(folder) / "train.arrow"
        start = time.perf_counter()
        write_table(path, FEATURES, _tables(lengths, pairs, seed))
        written = time.perf_counter()
        pa.default_memory_pool().release_unused()
        with PeakMemory() as memory:
            batches = Batches(
                read_table(path), batch_tokens=batch_tokens, shapes=8, seed=seed, pad=0
            )
            planned = time.perf_counter()
            stretches = _timed(batches.batch, steps)
        return {
            "name": lengths.name,
            "pairs": pairs,
            "target_tokens": int(batches.target.lengths.sum(dtype=np.int64)),
            "table_bytes": path.stat().st_size,
            "write_seconds": written - start,
            "plan_seconds": planned - written,
            "batches_per_second": statistics.median(s["batches_per_second"] for s in stretches),
            "target_tokens_per_second": statistics.median(
                s["target_tokens_per_second"] for s in stretches
            ),
            "repeats": stretches,
            "real_share": batches.plan.real_share,
            "rss_anon_before_bytes": memory.before,
            "rss_anon_bytes": memory.peak,
        }


def _timed(batch: Callable[[int], Any], steps: int) -> list[dict[str, float]]:
    stretches = []
    edges = [steps * i // REPEATS for i in range(REPEATS + 1)]
    for first, end in itertools.pairwise(edges):
        tokens, start = 0, time.perf_counter()
        for step in range(first, end):
            tokens += int(batch(step).target_lengths.sum())
        seconds = time.perf_counter() - start
        stretches.append(
            {
                "batches_per_second": (end - first) / seconds,
                "target_tokens_per_second": tokens / seconds,
            }
        )
    return stretches


# --- the table -----------------------------------------------------------------------------------


def _tables(corpus: Lengths, pairs: int, seed: int) -> Iterator[pa.Table]:
    random = np.random.default_rng(seed)
    for first in range(0, pairs, ROWS):
        rows = min(ROWS, pairs - first)
        target = random.lognormal(np.log(corpus.median), corpus.spread, rows)
        source = target * random.lognormal(0, corpus.ratio_spread, rows)
        text = pa.repeat("", rows)
        yield pa.table(
            {
                "source": text,
                "target": text,
                "source_ids": _ids(source, corpus, random),
                "target_ids": _ids(target, corpus, random),
            }
        )


def _ids(lengths: np.ndarray, corpus: Lengths, random: np.random.Generator) -> pa.ListArray:
    whole: Int[np.ndarray, "R"] = np.clip(np.rint(lengths), 2, corpus.longest).astype(np.int32)
    offsets = np.concatenate([[0], np.cumsum(whole)]).astype(np.int32)
    ids = random.integers(4, corpus.vocab_size, offsets[-1], dtype=np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(ids))
