"""Figures of search: what wider beams do, and other ways to choose a translation."""

from collections.abc import Iterator

from matplotlib.ticker import NullLocator

from nmt_ls.study.figures.blocks import Block, rows_by_bucket
from nmt_ls.study.figures.drawing import (
    Picture,
    against_smoothing,
    columns_for,
    legend_below,
    look,
    panel,
    summaries,
)

STRATEGIES = {"sample": "sampling", "mbr": "minimum Bayes risk"}


def beams(block: Block) -> Iterator[Picture]:
    """BLEU and length ratio against beam size, without a length penalty."""
    found = block.found("beam_curve")
    for field, title in (("bleu", "BLEU"), ("length_ratio", "length ratio")):
        order, lines = rows_by_bucket(found, ("beam",), field)
        if len(order) < 2:
            continue
        figure, axes = panel(f"{title} by beam size")
        sizes = [beam for (beam,) in order]
        for index, (epsilon, values) in enumerate(lines.items()):
            x, y = zip(
                *[p for p in zip(sizes, values, strict=True) if p[1] is not None], strict=True
            )
            axes.plot(x, y, label=block.strength.value(epsilon), **look(index))
        if field == "length_ratio":
            axes.axhline(1, color="#777777", linewidth=0.8, zorder=1)
        axes.set_xscale("log")
        axes.xaxis.set_minor_locator(NullLocator())
        axes.set_xticks(sizes, [str(size) for size in sizes])
        axes.set_xlabel("beam size")
        legend_below(figure, axes, columns_for(len(lines)))
        caption = f"{title[0].upper()}{title[1:]} against beam size on {block.label}"
        yield Picture(f"beam_{field}", block.label, "search", caption, figure)


def strategies(block: Block) -> Iterator[Picture]:
    """Quality of draws and of minimum Bayes risk beside beam search."""
    if not block.found("strategies"):
        return
    for measure, title in (("bleu", "BLEU"), ("chrf", "chrF")):
        figure, axes = panel(f"{title} by strategy", block.strength.axis)
        against_smoothing(axes, block.measure(measure), 0, "as configured")
        drawn = [
            against_smoothing(
                axes, summaries(block.found("strategies", kind, measure)), index, label
            )
            for index, (kind, label) in enumerate(STRATEGIES.items(), 1)
        ]
        if not any(drawn):
            continue
        legend_below(figure, axes)
        caption = f"{title} of other search strategies on {block.label}"
        yield Picture(f"strategies_{measure}", block.label, "search", caption, figure)


def empty(block: Block) -> Picture | None:
    """How often the empty translation is more probable than the one that search found."""
    shares = {e: [100 * v for v in values] for e, values in block.found("empty_better").items()}
    figure, axes = panel("empty translation likelier (%)", block.strength.axis)
    if not against_smoothing(axes, summaries(shares), 0):
        return None
    axes.set_ylim(bottom=0)
    caption = (
        f"Sentences of {block.label} whose empty translation is more probable than the one found"
    )
    return Picture("empty", block.label, "search", caption, figure)
