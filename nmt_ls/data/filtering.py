"""Training pairs to rows of ids: encoded in batches, filtered, every filter counted."""

import dataclasses
import hashlib
from collections.abc import Iterator
from itertools import chain
from typing import Any

import datasets
import numpy as np
import pyarrow as pa

from nmt_ls.config import DataConfig
from nmt_ls.data.subwords import Subwords

FEATURES = datasets.Features(
    {
        "source": datasets.Value("string"),
        "target": datasets.Value("string"),
        "source_ids": datasets.List(datasets.Value("int32")),
        "target_ids": datasets.List(datasets.Value("int32")),
    }
)

_ROWS = 20_000
_RATIO_FREE = 10
"""Pairs with both sides of at most so many tokens pass the length-ratio filter."""


def batches(pairs: datasets.Dataset) -> Iterator[tuple[list[str], list[str]]]:
    """Sources and first references, a batch at a time."""
    for batch in pairs.data.table.to_batches(max_chunksize=_ROWS):
        references = batch["references"]
        yield batch["source"].to_pylist(), references.flatten().to_pylist()


def first_of_identical(pairs: datasets.Dataset) -> np.ndarray:
    """bool [pairs]: not equal to an earlier pair. Holds 8 bytes a pair, not the texts."""
    hashes = np.empty(len(pairs), np.uint64)
    row = 0
    for sources, targets in batches(pairs):
        for source, target in zip(sources, targets, strict=True):
            left = source.encode()
            digest = hashlib.blake2b(len(left).to_bytes(8, "little"), digest_size=8)
            digest.update(left)
            digest.update(target.encode())
            hashes[row] = int.from_bytes(digest.digest(), "little")
            row += 1
    first = np.zeros(len(pairs), bool)
    first[np.unique(hashes, return_index=True)[1]] = True
    return first


@dataclasses.dataclass
class Counts:
    """What the filters saw. A pair counts for the first filter that takes it."""

    read: int = 0
    removed: dict[str, int] = dataclasses.field(
        default_factory=lambda: {"empty": 0, "duplicate": 0, "too_long": 0, "ratio": 0}
    )
    tokens: list[int] = dataclasses.field(default_factory=lambda: [0, 0])
    unknown: list[int] = dataclasses.field(default_factory=lambda: [0, 0])

    def report(self, kept: int) -> dict[str, Any]:
        shares = [
            unknown / max(tokens - kept, 1)  # eos is no word of the text
            for unknown, tokens in zip(self.unknown, self.tokens, strict=True)
        ]
        return {
            "pairs_read": self.read,
            "removed": self.removed,
            "pairs_kept": kept,
            "tokens": dict(zip(("source", "target"), self.tokens, strict=True)),
            "unk_share": {"train": dict(zip(("source", "target"), shares, strict=True))},
        }


def encoded(
    pairs: datasets.Dataset,
    data: DataConfig,
    subwords: Subwords,
    first: np.ndarray | None,
    counts: Counts,
) -> Iterator[pa.Table]:
    for sources, targets in batches(pairs):
        sides = [
            _flat(subwords.encode_source(sources, threads=data.num_proc)),
            _flat(subwords.encode_target(targets, threads=data.num_proc)),
        ]
        lengths = np.array([np.diff(offsets) for _, offsets in sides])  # [2, rows]
        shorter, longer = lengths.min(axis=0), lengths.max(axis=0)
        duplicate = np.zeros(len(sources), bool)
        if first is not None:
            duplicate = ~first[counts.read : counts.read + len(sources)]
        counts.read += len(sources)
        kept = np.ones(len(sources), bool)
        for name, taken in (
            ("empty", shorter <= 1),  # eos alone: nothing, or nothing but whitespace
            ("duplicate", duplicate),
            ("too_long", longer > data.max_length),
            ("ratio", (longer > data.max_length_ratio * shorter) & (longer > _RATIO_FREE)),
        ):
            counts.removed[name] += int((kept & taken).sum())
            kept &= ~taken
        columns: dict[str, pa.Array] = {
            "source": pa.array(sources, pa.string()),
            "target": pa.array(targets, pa.string()),
        }
        for side, name in enumerate(("source_ids", "target_ids")):
            values, offsets = sides[side]
            columns[name] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))
            counts.tokens[side] += int(lengths[side][kept].sum())
            unknown = np.repeat(kept, lengths[side]) & (values == subwords.unk)
            counts.unknown[side] += int(unknown.sum())
        yield pa.table(columns).filter(pa.array(kept))


def _flat(sentences: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """int32 values [tokens] of all sentences and their int32 offsets [sentences + 1]."""
    offsets = np.zeros(len(sentences) + 1, np.int32)
    np.cumsum(np.fromiter(map(len, sentences), np.int32, len(sentences)), out=offsets[1:])
    values = np.fromiter(chain.from_iterable(sentences), np.int32, int(offsets[-1]))
    return values, offsets
