"""Figures of training, and of the hidden states that it leads to."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from nmt_ls.study.comparison import Run
from nmt_ls.study.figures.blocks import Block
from nmt_ls.study.figures.drawing import (
    COLOURS,
    MARKERS,
    Picture,
    columns_for,
    legend_below,
    look,
    panel,
    small_multiples,
)
from nmt_ls.study.strength import strength_in
from nmt_ls.study.wording import key

CURVES = {
    "validation_perplexity": ("curves_perplexity", "validation perplexity"),
    "validation_bleu": ("curves_bleu", "validation BLEU"),
    "perplexity": ("curves_training", "training perplexity"),
}
"""Fields of metrics.jsonl: the figure's name and what it shows. All with hard labels."""

POINTS = 150
"""A line of more steps is thinned out: no eye sees the difference."""


def learning_curves(
    runs: Sequence[Run], curves: Mapping[str, Sequence[Mapping[str, Any]]], label: str = ""
) -> Iterator[Picture]:
    """Perplexity and BLEU against the training step, one line per run.

    Args:
      runs: whose lines to draw, in the order of ε.
      curves: per run directory the records of its metrics.jsonl.
      label: what these runs have in common; empty: all of them.
    """
    for field, (name, title) in CURVES.items():
        lines = {run["run"]: _points(curves.get(run["run"], ()), field) for run in runs}
        if not any(len(line) > 1 for line in lines.values()):
            continue
        figure, axes = panel(title)
        smoothing = list(dict.fromkeys(key(run["label_smoothing"]) for run in runs))
        named = set()
        for run in runs:
            epsilon = key(run["label_smoothing"])
            if line := lines[run["run"]]:
                x, y = zip(*line, strict=True)
                spread = max(1, len(x) // 6)
                axes.plot(x, y, linewidth=1.2, markersize=4, markevery=(spread - 1, spread),
                          label=None if epsilon in named else strength_in(run).value(epsilon),
                          **look(smoothing.index(epsilon)))  # fmt: skip
                named.add(epsilon)
        axes.set_xlabel("step")
        axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:,.0f}"))
        axes.xaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
        if "perplexity" in field:
            _logarithmic(axes, [y for line in lines.values() for _, y in line])
        legend_below(figure, axes, columns_for(len(named)))
        caption = f"{title[0].upper()}{title[1:]}{f', {label}' if label else ''}, one line per run"
        yield Picture(name, label, "training", caption, figure)


def _points(records: Sequence[Mapping[str, Any]], field: str) -> list[tuple[int, float]]:
    found = [(r["step"], r[field]) for r in records if "step" in r and _is_number(r.get(field))]
    step = -(-len(found) // POINTS) or 1
    # Thinned from the end, so that the last point is always there.
    return found[::-1][::step][::-1]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)  # a step may have been skipped


def _logarithmic(axes: Axes, values: Sequence[float]) -> None:
    """A logarithmic axis with plain numbers: 2, 5, 10, not 2×10⁰."""
    low, high = min(values), max(values)
    axes.set_yscale("log")
    steps = (1, 2, 5) if high / low > 8 else (1, 1.2, 1.5, 2, 3, 4, 5, 6, 8)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks = [s * 10.0**d for d in decades for s in steps if low * 0.9 <= s * 10.0**d <= high * 1.1]
    if len(ticks) >= 2:
        axes.set_yticks(ticks, [f"{tick:g}" if tick < 1e4 else f"{tick:.0e}" for tick in ticks])
        axes.set_yticks([], minor=True)


def hidden_states(block: Block) -> Picture | None:
    """Hidden states of three words on the plane through their output rows; first run of each ε."""
    found = {e: values[0] for e, values in block.found("projection").items()}
    if not found:
        return None
    figure, grid, wide = small_multiples(len(found), 0.45)
    for axes, (epsilon, one) in zip(grid, found.items(), strict=True):
        for index, word in enumerate(one["words"]):
            points = np.array(one["points"][word]).reshape(-1, 2)
            axes.scatter(points[:, 0], points[:, 1], s=9, alpha=0.6, linewidth=0, label=word,
                         color=COLOURS[index], marker=MARKERS[index])  # fmt: skip
        ratio = one["hidden"]["ratio"]
        spread = "" if ratio is None else f"\nwithin/between {ratio:.2f}"
        axes.set_title(f"{block.strength.value(epsilon)}{spread}", fontsize=9.5)
        # Units differ from model to model; only the shape is compared.
        axes.set(xticklabels=[], yticklabels=[], aspect="equal", adjustable="datalim")
    legend_below(figure, grid[0], 3, markerscale=2.2, handletextpad=0.1)
    caption = (
        f"Hidden states that predict three frequent words of {block.label}, on the plane through "
        "the words’ output embeddings (Müller et al. 2019). Smaller within/between: tighter."
    )
    return Picture("projection", block.label, "hidden", caption, figure, wide)
