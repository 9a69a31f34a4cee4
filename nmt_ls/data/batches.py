"""Which sentences form step k, as a pure function of (corpus, seed, step): nothing to save.

Each pair belongs to the smallest shape that holds it. The pairs of a shape form an endless stream
of passes, each in its own random order, which batches cut up without gaps; so no batch is padded
with empty rows but where rows do not divide over devices. Which *shape* a step has depends on the
corpus and the step alone; the seed decides which sentences fill it.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from nmt_ls.data.shapes import Shape, assign_shapes, choose_shapes

if TYPE_CHECKING:  # a second to load, and whoever translates has no table
    import datasets

# Purposes keep the random streams of one seed apart.
_SHAPE_ORDER, _SENTENCE_ORDER, _SEGMENTATION = 1, 2, 3


class Batch(NamedTuple):
    """Rows of one shape, padded at the right. Empty rows (length 0) fill up to a multiple."""

    source: Int[np.ndarray, "R S"]
    """Subword ids, end-of-sentence included."""
    source_lengths: Int[np.ndarray, "R"]
    """Real source tokens."""
    target: Int[np.ndarray, "R T"]
    """Subword ids, end-of-sentence included, without bos."""
    target_lengths: Int[np.ndarray, "R"]
    """Real target tokens."""


def random_words(purpose: int, *key: int, size: int) -> np.ndarray:
    """uint64 words that depend on (purpose, key) alone: Philox, whose stream numpy guarantees."""
    bits = np.random.Philox(np.random.SeedSequence([purpose, *key]))
    return bits.random_raw(size)


def random_order(purpose: int, *key: int, size: int) -> np.ndarray:
    """A random permutation of range(size) that depends on (purpose, key) alone."""
    return np.argsort(random_words(purpose, *key, size=size), kind="stable")


class TokenColumn:
    """One side of a tokenised table: zero-copy views of its memory-mapped ids."""

    def __init__(self, table: "datasets.Dataset", name: str):
        chunks = table.data.column(name).chunks
        self._values = [c.values.to_numpy(zero_copy_only=True) for c in chunks]
        self._offsets = [c.offsets.to_numpy(zero_copy_only=True) for c in chunks]
        self._first = np.cumsum([0] + [len(c) for c in chunks])
        lengths = [np.diff(o).astype(np.int32) for o in self._offsets]
        self.lengths: Int[np.ndarray, "N"] = np.concatenate(lengths or [np.zeros(0, np.int32)])

    def __getitem__(self, row: int) -> Int[np.ndarray, "L"]:
        chunk = int(np.searchsorted(self._first, row, side="right")) - 1
        offsets, local = self._offsets[chunk], row - self._first[chunk]
        return self._values[chunk][offsets[local] : offsets[local + 1]]

    def counts(self, vocab_size: int) -> Int[np.ndarray, "V"]:
        """How often each id stands in the column."""
        # A chunk's ids may begin before its first row and end after its last.
        parts = (
            np.bincount(values[offsets[0] : offsets[-1]], minlength=vocab_size)
            for values, offsets in zip(self._values, self._offsets, strict=True)
            if len(offsets) > 1
        )
        return sum(parts, np.zeros(vocab_size, np.int64))

    def fill(self, rows: Int[np.ndarray, "R"], out: Int[np.ndarray, "R L"]) -> None:
        """Write the ids of `rows` into the first rows of `out`, from the left."""
        chunks = np.searchsorted(self._first, rows, side="right") - 1
        local = rows - self._first[chunks]
        for i, (chunk, j) in enumerate(zip(chunks.tolist(), local.tolist(), strict=True)):
            offsets = self._offsets[chunk]
            ids = self._values[chunk][offsets[j] : offsets[j + 1]]
            out[i, : len(ids)] = ids


class BatchPlan:
    """The shapes of a corpus and the schedule of its batches.

    Args:
      source_lengths, target_lengths: tokens of each pair, end-of-sentence included.
      batch_tokens: target positions of a batch, padding included.
      shapes: how many shapes at most.
      seed: decides the order of sentences, and nothing else.
    """

    def __init__(
        self,
        source_lengths: Int[np.ndarray, "N"],
        target_lengths: Int[np.ndarray, "N"],
        *,
        batch_tokens: int,
        shapes: int = 8,
        seed: int = 0,
    ):
        self.seed = seed
        self.shapes: tuple[Shape, ...] = choose_shapes(source_lengths, target_lengths, shapes)
        assigned = assign_shapes(source_lengths, target_lengths, self.shapes)
        members = [np.flatnonzero(assigned == i).astype(np.int32) for i in range(len(self.shapes))]
        kept = [i for i, m in enumerate(members) if len(m)]
        self.shapes = tuple(self.shapes[i] for i in kept)
        self._members = [members[i] for i in kept]
        self.rows = tuple(max(1, batch_tokens // t) for _, t in self.shapes)
        """Sentences of a batch of each shape."""
        positions = [r * (s + t) for r, (s, t) in zip(self.rows, self.shapes, strict=True)]
        self.largest = int(np.argmax(positions))
        """Index of the shape that needs the most memory; step 0 has it."""
        real = float(source_lengths.sum() + target_lengths.sum())
        padded = sum(len(m) * (s + t) for m, (s, t) in zip(self._members, self.shapes, strict=True))
        self.real_share = real / padded
        """Share of source and target positions that are not padding."""

    def _batches_before(self, epoch: int) -> list[int]:
        """Batches of each shape in all epochs before this one: an epoch has n/rows on average."""
        return [-(-epoch * len(m) // r) for m, r in zip(self._members, self.rows, strict=True)]

    def epoch_of(self, step: int) -> tuple[int, int]:
        """(epoch, step within the epoch) of a step, both from 0."""
        per_epoch = sum(len(m) / r for m, r in zip(self._members, self.rows, strict=True))
        epoch = max(int(step / per_epoch) - 1, 0)
        # Rounding up moves an epoch's start by less than one batch per shape.
        while epoch and sum(self._batches_before(epoch)) > step:
            epoch -= 1
        while sum(self._batches_before(epoch + 1)) <= step:
            epoch += 1
        return epoch, step - sum(self._batches_before(epoch))

    def steps_in(self, epoch: int) -> int:
        """Steps of an epoch; epochs differ by a few, so that no batch is padded at their ends."""
        return sum(self._batches_before(epoch + 1)) - sum(self._batches_before(epoch))

    @lru_cache(maxsize=2)  # noqa: B019 - one plan lives as long as its run
    def _shape_order(self, epoch: int) -> np.ndarray:
        before, after = self._batches_before(epoch), self._batches_before(epoch + 1)
        counts = [b - a for a, b in zip(before, after, strict=True)]
        shapes = np.repeat(np.arange(len(counts)), counts)
        shapes = shapes[random_order(_SHAPE_ORDER, epoch, size=len(shapes))]
        if epoch == 0:
            # Running out of memory should happen at step 1, not after an hour.
            first = int(np.argmax(shapes == self.largest))
            shapes[[0, first]] = shapes[[first, 0]]
        return shapes

    @lru_cache(maxsize=32)  # noqa: B019
    def _sentence_order(self, shape: int, visit: int) -> np.ndarray:
        order = random_order(
            _SENTENCE_ORDER, self.seed, shape, visit, size=len(self._members[shape])
        )
        return order.astype(np.int32)

    def shape_of(self, step: int) -> int:
        """Index of the shape of a step; the same for every seed."""
        epoch, position = self.epoch_of(step)
        return int(self._shape_order(epoch)[position])

    def rows_of(self, step: int) -> tuple[int, Int[np.ndarray, "R"]]:
        """(index of the shape, rows of the table) of a step."""
        epoch, position = self.epoch_of(step)
        order = self._shape_order(epoch)
        shape = int(order[position])
        batch = self._batches_before(epoch)[shape] + int(np.sum(order[:position] == shape))
        members, rows = self._members[shape], self.rows[shape]
        stream = np.arange(batch * rows, (batch + 1) * rows)
        visits, places = np.divmod(stream, len(members))
        chosen = np.empty(rows, np.int32)
        for visit in np.unique(visits):
            here = visits == visit
            chosen[here] = members[self._sentence_order(shape, int(visit))[places[here]]]
        return shape, chosen


Resample = Callable[[int, float, float], tuple[list[int], list[int]]]
"""(row, uniform for the source, uniform for the target) → freshly drawn ids of both sides."""


class Batches:
    """The batches of a tokenised table: `batch(step)`.

    Args:
      table: columns `source_ids`, `target_ids`.
      pad: the id that fills up rows.
      row_multiple: rows are filled up to a multiple of this (devices · accumulation).
      resample: draws segmentations anew (subword regularisation); None keeps the table's.
    """

    def __init__(
        self,
        table: "datasets.Dataset",
        *,
        batch_tokens: int,
        shapes: int,
        seed: int,
        pad: int,
        row_multiple: int = 1,
        resample: Resample | None = None,
    ):
        self.source = TokenColumn(table, "source_ids")
        self.target = TokenColumn(table, "target_ids")
        self.plan = BatchPlan(
            self.source.lengths,
            self.target.lengths,
            batch_tokens=batch_tokens,
            shapes=shapes,
            seed=seed,
        )
        self.pad, self.row_multiple, self.resample = pad, row_multiple, resample

    def batch(self, step: int) -> Batch:
        """The global batch of a step, counted from 0."""
        shape, rows = self.plan.rows_of(step)
        source_length, target_length = self.plan.shapes[shape]
        filled_up = -(-len(rows) // self.row_multiple) * self.row_multiple
        batch = Batch(
            np.full((filled_up, source_length), self.pad, np.int32),
            np.zeros(filled_up, np.int32),
            np.full((filled_up, target_length), self.pad, np.int32),
            np.zeros(filled_up, np.int32),
        )
        self.source.fill(rows, batch.source)
        self.target.fill(rows, batch.target)
        batch.source_lengths[: len(rows)] = self.source.lengths[rows]
        batch.target_lengths[: len(rows)] = self.target.lengths[rows]
        if self.resample is not None:
            self._redraw(batch, rows, step, self.resample)
        return batch

    def _redraw(self, batch: Batch, rows: np.ndarray, step: int, resample: Resample) -> None:
        words = random_words(_SEGMENTATION, self.plan.seed, step, size=2 * len(rows))
        uniforms: Float[np.ndarray, "R 2"] = (words >> 11).reshape(-1, 2) * 2.0**-53
        for i, row in enumerate(rows.tolist()):
            drawn = resample(row, *uniforms[i].tolist())
            sides = ((batch.source, batch.source_lengths), (batch.target, batch.target_lengths))
            for ids, (out, lengths) in zip(drawn, sides, strict=True):
                # A segmentation that outgrows the shape gives way to the table's.
                if len(ids) <= out.shape[1]:
                    out[i, : len(ids)], out[i, len(ids) :] = ids, self.pad
                    lengths[i] = len(ids)
