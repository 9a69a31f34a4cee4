"""Sentences to padded rows of a few shapes, for programs that are compiled once a shape."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from jaxtyping import Int

from nmt_ls.config import DecodingConfig
from nmt_ls.model.cache import SHARED


def sentences_at_a_time(decoding: DecodingConfig, n_best: int = 1) -> int:
    """`decoding.batch_sentences`; of many hypotheses fewer, so that memory stays the same.

    Args:
      decoding: how they are searched.
      n_best: how many of each are asked for, which is how many samples are drawn.
    """
    d = decoding
    hypotheses = {"beam": d.beam, "sample": n_best, "mbr": d.samples}[d.strategy]
    few = SHARED if d.strategy == "beam" else 8
    return max(1, d.batch_sentences * few // max(few, hypotheses))


def padded_length(length: int) -> int:
    """The next power of two from 16: few shapes, whatever the text."""
    return max(16, 1 << (length - 1).bit_length())


def in_batches(
    lengths: Sequence[tuple[int, ...]], rows: int | Callable[[tuple[int, ...]], int]
) -> Iterator[tuple[list[int], tuple[int, ...]]]:
    """(indices, padded lengths) of batches of at most `rows` items, longest first.

    `rows` may be a function of the padded lengths.

    Items of one batch have the same padded lengths: filled up with shorter ones, a sentence's last
    bits would depend on what else is in the file. Longest first, so that what does not fit in
    memory fails at once.
    """
    shapes = [tuple(padded_length(n) for n in item) for item in lengths]
    order = sorted(range(len(lengths)), key=lambda i: (shapes[i], lengths[i]), reverse=True)
    start = 0
    while start < len(order):
        shape = shapes[order[start]]
        most = rows(shape) if callable(rows) else rows
        stop = start
        while stop < len(order) and stop - start < most and shapes[order[stop]] == shape:
            stop += 1
        yield order[start:stop], shape
        start = stop


def pad_rows(
    ids: Sequence[Sequence[int] | np.ndarray], rows: int, length: int, pad: int
) -> tuple[Int[np.ndarray, "R L"], Int[np.ndarray, "R"]]:
    """(ids padded at the right, lengths); rows beyond the given ones are empty."""
    out = np.full((rows, length), pad, np.int32)
    lengths = np.zeros(rows, np.int32)
    for i, row in enumerate(ids):
        out[i, : len(row)] = row
        lengths[i] = len(row)
    return out, lengths


def dealt(count: int, rows: int, devices: int) -> Int[np.ndarray, "count"]:
    """In which of `rows` rows each item lies when they are dealt out to devices in turn.

    A device's rows are neighbours; sorted items in order would give one device the longest.
    """
    items = np.arange(count)
    return items % devices * (rows // devices) + items // devices
