"""Figures of likelihood and calibration: how sure the models are, and whether they should be."""

from collections.abc import Iterator

import numpy as np

from nmt_ls.study.figures.blocks import Block
from nmt_ls.study.figures.drawing import (
    Picture,
    against_smoothing,
    columns_for,
    legend_below,
    look,
    no_magnifying_glass,
    panel,
    small_multiples,
    summaries,
)

ADJUSTED = {"temperature": "tempered", "unmixed": "un-mixed", "both": "both"}
"""Keys of results[…]["adjusted"], and what they are called."""

FEW = 20
"""A bin of a reliability diagram with fewer tokens is drawn hollow."""


def nll(block: Block) -> Picture | None:
    """Hard-label nll as it is, and after what was fitted on validation text."""
    figure, axes = panel("nll per token (nats)", block.strength.axis)
    if not against_smoothing(axes, block.measure("nll_per_token"), 0, "as trained"):
        return None
    for index, (kind, label) in enumerate(ADJUSTED.items(), 1):
        found = block.summary(f"nll_{kind}", "adjusted", kind, "nll_per_token")
        against_smoothing(axes, found, index, label)
    floor = (block.result.get("truth") or {}).get("nll_floor")
    if floor is not None:
        axes.axhline(floor, color="black", linestyle=":", label=f"the truth: {floor:.3f}")
    if len(axes.get_legend_handles_labels()[0]) > 1:
        legend_below(figure, axes)
    no_magnifying_glass(axes, 0.1)
    caption = f"Negative log-likelihood on {block.label}"
    return Picture("nll", block.label, "likelihood", caption, figure)


def entropy(block: Block) -> Picture | None:
    """Mean entropy of the predictions beside the nll, which it equals where a model is right
    about how much it does not know."""
    figure, axes = panel("entropy per token (nats)", block.strength.axis)
    if not against_smoothing(axes, block.summary("entropy", "entropy"), 0, "entropy as trained"):
        return None
    both = summaries(block.found("adjusted", "both", "entropy"))
    against_smoothing(axes, both, 3, "entropy un-mixed and tempered")
    against_smoothing(axes, block.measure("nll_per_token"), 6, "nll as trained")
    legend_below(figure, axes, 1)
    caption = f"Entropy of the predictions on {block.label}"
    return Picture("entropy", block.label, "likelihood", caption, figure)


def calibration(block: Block) -> Iterator[Picture]:
    """ECE and the signed gap against ε."""
    figure, axes = panel("expected calibration error", block.strength.axis)
    if against_smoothing(axes, block.measure("ece"), 0, "reading the reference"):
        for index, (kind, label) in enumerate(ADJUSTED.items(), 1):
            if kind != "both":
                found = summaries(block.found("adjusted", kind, "ece"))
                against_smoothing(axes, found, index, f"… {label}")
        own = block.summary("inference_ece", "inference_calibration", "ece")
        against_smoothing(axes, own, 4, "writing itself")
        axes.set_ylim(bottom=0)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            legend_below(figure, axes)
        yield Picture(
            "ece", block.label, "calibration", f"Calibration error on {block.label}", figure
        )
    figure, axes = panel("mean confidence − accuracy", block.strength.axis)
    if against_smoothing(axes, block.measure("gap"), 0, "reading the reference"):
        own = summaries(block.found("inference_calibration", "gap"))
        against_smoothing(axes, own, 4, "writing itself")
        axes.axhline(0, color="black", linewidth=0.8)
        if len(axes.get_legend_handles_labels()[0]) > 1:
            legend_below(figure, axes)
        caption = f"Signed gap on {block.label}: above 0 overconfident"
        yield Picture("gap", block.label, "calibration", caption, figure)


def reliability(block: Block) -> Picture | None:
    """One reliability diagram per ε: accuracy against confidence; larger marks hold more tokens."""
    panels = {
        epsilon: [row for row in setting["reliability"] if row["count"]]
        for epsilon, setting in block.result["by_smoothing"].items()
    }
    panels = {epsilon: rows for epsilon, rows in panels.items() if rows}
    if not panels:
        return None
    figure, grid, wide = small_multiples(len(panels), 0.45)
    ece = block.measure("ece")
    for index, (axes, (epsilon, rows)) in enumerate(zip(grid, panels.items(), strict=True)):
        mark = look(index)
        total = sum(row["count"] for row in rows)
        x = np.array([row["confidence"] for row in rows])
        y = np.array([row["accuracy"] for row in rows])
        axes.plot([0, 1], [0, 1], color="#555555", linewidth=0.9, linestyle=":")
        few = np.array([row["count"] < FEW for row in rows])
        axes.plot(x[~few], y[~few], color=mark["color"], linewidth=1)
        sizes = np.array([16 + 150 * row["count"] / total for row in rows])
        axes.scatter(x[~few], y[~few], s=sizes[~few], color=mark["color"],
                     marker=mark["marker"], edgecolor="white", linewidth=0.6, zorder=3)  # fmt: skip
        axes.scatter(x[few], y[few], s=sizes[few], color="white", marker=mark["marker"],
                     edgecolor=mark["color"], linewidth=0.8, zorder=3)  # fmt: skip
        axes.set_title(block.strength.value(epsilon))
        axes.set(xlim=(0, 1.04), ylim=(0, 1.04), aspect="equal")
        axes.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        axes.set_yticks([0, 0.5, 1], ["0", "0.5", "1"] if axes in grid[::4] else [])
        if epsilon in ece and ece[epsilon]["mean"] is not None:
            axes.text(1.0, 0.04, f"ECE {ece[epsilon]['mean']:.3f}", ha="right", fontsize=9)
    figure.supxlabel("confidence", fontsize=9.5)
    figure.supylabel("accuracy", fontsize=9.5)
    caption = (
        f"Reliability on {block.label}, tokens of all seeds: below the dotted line a model claims "
        "more than it hits. Larger marks hold more tokens, hollow ones fewer than 20."
    )
    return Picture("reliability", block.label, "calibration", caption, figure, wide)


def selective(block: Block) -> Picture | None:
    """Risk of the sentences that a model is surest of."""
    found = block.found("risk_coverage", "points")
    if not found:
        return None
    figure, axes = panel("mean risk of what is kept")
    for index, (epsilon, curves) in enumerate(found.items()):
        first = curves[0]
        same = [c for c in curves if len(c) == len(first)]
        x = [point[0] for point in first]
        y = np.mean([[point[1] for point in curve] for curve in same], axis=0)
        spread = max(1, len(x) // 6)
        label = block.strength.value(epsilon)
        axes.plot(x, y, label=label, markevery=(spread - 1, spread), **look(index))
    axes.set(xlabel="share of sentences kept, surest first", xlim=(0, 1.02))
    legend_below(figure, axes, columns_for(len(found)))
    caption = f"Risk (1 − chrF/100) against coverage on {block.label}"
    return Picture("risk", block.label, "calibration", caption, figure)
