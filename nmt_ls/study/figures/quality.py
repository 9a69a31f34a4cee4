"""Figures of translation quality: against ε, by kind of sentence and word, beside the truth."""

from collections.abc import Iterator, Mapping
from typing import Any

from nmt_ls.study.figures.blocks import Block, rows_by_bucket
from nmt_ls.study.figures.drawing import (
    Picture,
    against_smoothing,
    by_category,
    columns_for,
    legend_below,
    no_magnifying_glass,
    panel,
)
from nmt_ls.study.strength import strength_in
from nmt_ls.study.wording import evidence

FEW = 20
"""Buckets with fewer sentences or words say too little to be drawn."""


def quality(block: Block) -> Iterator[Picture]:
    """BLEU and chrF against ε, and the difference from the baseline with its interval."""
    truth = block.result.get("truth") or {}
    for measure, title in (("bleu", "BLEU"), ("chrf", "chrF")):
        figure, axes = panel(title, block.strength.axis)
        if not against_smoothing(axes, block.measure(measure)):
            continue
        oracle = truth.get(f"{measure}_oracle")
        if oracle is not None:
            label = f"always the likeliest translation: {oracle:.1f}"
            axes.axhline(oracle, color="black", linestyle=":", linewidth=1, label=label)
            legend_below(figure, axes, 1)
        no_magnifying_glass(axes, 2)
        yield Picture(measure, block.label, "quality", f"{title} on {block.label}", figure)
    if drawn := differences(block.result, block.label):
        yield drawn


def differences(result: Mapping[str, Any], label: str) -> Picture | None:
    """BLEU over that of the block's own baseline, with the interval behind the words on it."""
    points, over = {}, set()
    for epsilon, setting in result["by_smoothing"].items():
        difference = (setting["differences"] or {}).get("bleu")
        found = evidence(difference) if difference else None
        if found:
            over.add(found["over"])
            points[epsilon] = {"mean": found["difference"], "ci95": found["ci95"]}
    if not points:
        return None
    strength = strength_in(result)
    figure, axes = panel(f"ΔBLEU vs {strength.value(result['baseline'])}", strength.axis)
    axes.axhline(0, color="black", linewidth=0.8)
    against_smoothing(axes, points, 1)
    for line in axes.get_lines():
        if line.get_linestyle() != "-":
            line.set_linestyle("none")  # intervals are compared with 0, not with each other
    axes.margins(x=0.25)
    caption = f"Difference in BLEU on {label}, 95 % intervals over {' or '.join(sorted(over))}"
    return Picture("difference", label, "quality", caption, figure)


def by_length(block: Block) -> Picture | None:
    """BLEU of short and long sentences."""
    found = block.found("by_source_length")
    rows = {e: [[r for r in t if r["sentences"] >= FEW] for t in ts] for e, ts in found.items()}
    order, lines = rows_by_bucket(rows, ("low", "high", "sentences"), "bleu")
    if len(order) < 2:
        return None
    figure, axes = panel("BLEU by length of the source")
    by_category(axes, lines, [f"{_range(low, high)}\n({n:,})" for low, high, n in order],
                block.strength)  # fmt: skip
    axes.set_xlabel("words of the source (sentences)")
    legend_below(figure, axes, columns_for(len(lines)))
    caption = f"BLEU by sentence length on {block.label}"
    return Picture("length", block.label, "where", caption, figure)


def by_frequency(block: Block) -> Picture | None:
    """F1 of words that training saw never, seldom or often."""
    found = block.found("by_word_frequency")
    rows = {e: [[r for r in t if r["words"] >= FEW] for t in ts] for e, ts in found.items()}
    order, lines = rows_by_bucket(rows, ("low", "high", "words"), "f1")
    if len(order) < 2:
        return None
    figure, axes = panel("F1 of words by frequency in training")
    by_category(axes, lines, [f"{_from(low, high)}\n({_short(n)})" for low, high, n in order],
                block.strength)  # fmt: skip
    axes.set_xlabel("occurrences in training (words of references)")
    legend_below(figure, axes, columns_for(len(lines)))
    caption = f"Word F1 by training frequency on {block.label}"
    return Picture("frequency", block.label, "where", caption, figure)


def _range(low: int, high: int | None) -> str:
    if high is None:
        return f"≥{low}"
    return str(low) if low == high else f"{low}–{high}"


def _from(low: int, high: int | None) -> str:
    return str(low) if low == high else f"{_short(low)}+"


def _short(count: int) -> str:
    return f"{count / 1000:.3g}k" if count >= 1000 else str(count)
