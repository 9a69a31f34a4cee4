"""The figures of a report, as far as its numbers allow: none is drawn without data."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from nmt_ls.study.comparison import Run, settings_text
from nmt_ls.study.figures import curves as training
from nmt_ls.study.figures import gains, likelihood, quality, search
from nmt_ls.study.figures.blocks import Block, blocks_of, pooled_blocks
from nmt_ls.study.figures.drawing import Picture, hashed, inline, png, style, svg

__all__ = ["MOST_BLOCKS", "Picture", "blocks_to_draw", "draw_all", "hashed", "inline", "png", "svg"]

MOST_BLOCKS = 9
"""Of a large grid only so many blocks are drawn; the tables have them all."""


def draw_all(
    comparison: Mapping[str, Any],
    runs: Sequence[Run],
    records: Mapping[str, Sequence[Mapping[str, Any]]],
) -> list[Picture]:
    """Every figure that the numbers allow, in the order of the report.

    Args:
      comparison: the content of comparison.json.
      runs: the runs that it was made of; figures of what it does not hold are drawn from their
        results.
      records: per run directory the records of its metrics.jsonl.
    """
    with style():
        return list(_drawn(comparison, blocks_to_draw(comparison, runs), runs, records))


def blocks_to_draw(comparison: Mapping[str, Any], runs: Sequence[Run]) -> list[Block]:
    """What is pooled, then all blocks; of a large grid the first ones of its first test set."""
    blocks = blocks_of(comparison, runs)
    if len(blocks) > MOST_BLOCKS:
        blocks = [block for block in blocks if block.test == blocks[0].test][:MOST_BLOCKS]
    return [*pooled_blocks(comparison)[:MOST_BLOCKS], *blocks]


def _drawn(
    comparison: Mapping[str, Any],
    blocks: Sequence[Block],
    runs: Sequence[Run],
    records: Mapping[str, Sequence[Mapping[str, Any]]],
) -> Iterator[Picture]:
    # Panels of one kind stand together: test sets are compared side by side.
    yield from _by_kind(blocks, quality.quality)
    yield from _one_each(blocks, likelihood.nll)
    yield from _one_each(blocks, likelihood.entropy)
    yield from _by_kind(blocks, likelihood.calibration)
    yield from _one_each(blocks, likelihood.selective)
    yield from _one_each(blocks, likelihood.reliability)
    yield from _by_kind(blocks, search.beams)
    yield from _by_kind(blocks, search.strategies)
    yield from _one_each(blocks, search.empty)
    yield from _one_each(blocks, quality.by_length)
    yield from _one_each(blocks, quality.by_frequency)
    yield from _one_each(blocks, training.hidden_states)
    yield from gains.gains(comparison.get("pooled") or comparison["tests"])
    seen: list[dict[str, Any]] = []
    for block in blocks:
        if block.settings not in seen:
            seen.append(block.settings)
            label = settings_text(block.settings)
            alike = [run for run in runs if (run.get("settings") or {}) == block.settings]
            ordered = sorted(alike, key=lambda run: (run["label_smoothing"], run["seed"]))
            yield from training.learning_curves(ordered, records, label)


def _one_each(
    blocks: Sequence[Block], draw: Callable[[Block], Picture | None]
) -> Iterator[Picture]:
    yield from (picture for block in blocks if (picture := draw(block)))


def _by_kind(
    blocks: Sequence[Block], draw: Callable[[Block], Iterable[Picture]]
) -> Iterator[Picture]:
    """Those of one kind side by side."""
    kinds: dict[str, list[Picture]] = {}
    for block in blocks:
        for picture in draw(block):
            kinds.setdefault(picture.kind, []).append(picture)
    yield from chain.from_iterable(kinds.values())
