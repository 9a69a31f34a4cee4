"""The figures of a report: matplotlib without a display, colours that a colour-blind eye parts.

Colours are Okabe & Ito's; every line also has its own marker and dash, for black and white.
"""

import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
DASHES = ("-", "--", "-.", ":")

_STYLE: Any = {
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "font.size": 10,
    "grid.alpha": 0.3,
    "legend.frameon": False,
    "savefig.bbox": "tight",
    # Text stays text: small files that can be searched and read aloud.
    "svg.fonttype": "none",
    # Ids that depend on the content alone, so that rebuilding a report changes nothing.
    "svg.hashsalt": "nmt_ls",
}


def draw_all(
    comparison: dict, curves: dict[str, list[list[dict]]]
) -> dict[str, tuple[str, Figure]]:
    """Every figure that the numbers allow, by file name without ending, with its caption.

    Args:
      comparison: the content of comparison.json.
      curves: per ε (as in comparison.json) the metrics.jsonl records of each of its runs.
    """
    figures: dict[str, tuple[str, Figure]] = {}
    kinds: tuple[tuple[str, Callable[[str, dict], tuple[str, Figure] | None]], ...] = (
        ("quality", quality),
        ("perplexity", perplexity),
        ("calibration", calibration),
        ("reliability", reliability),
    )
    with matplotlib.rc_context(_STYLE):
        for test, result in comparison["tests"].items():
            for kind, draw in kinds:
                if drawn := draw(test, result):
                    figures[f"{kind}_{_file_name(test)}"] = drawn
        if drawn := learning_curves(curves):
            figures["learning_curves"] = drawn
    return figures


def quality(test: str, result: dict) -> tuple[str, Figure] | None:
    """BLEU and chrF against ε."""
    figure = Figure(figsize=(7.5, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    drawn = [
        _against_smoothing(left, result, "bleu", "BLEU", 0),
        _against_smoothing(right, result, "chrf", "chrF2", 1),
    ]
    return (f"BLEU and chrF on {test} against ε. {_BARS}", figure) if any(drawn) else None


def perplexity(test: str, result: dict) -> tuple[str, Figure] | None:
    """Hard-label perplexity against ε, and the least that any model can have where it is known."""
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    axes = figure.subplots()
    if not _against_smoothing(axes, result, "perplexity", "perplexity (hard labels)", 2):
        return None
    floor = (result["truth"] or {}).get("perplexity_floor")
    if floor is not None:
        axes.axhline(floor, color="black", linestyle=":", label=f"the truth: {floor:.2f}")
        axes.legend()
    return f"Perplexity per target token on {test} against ε. {_BARS}", figure


def calibration(test: str, result: dict) -> tuple[str, Figure] | None:
    """ECE and the signed gap against ε."""
    figure = Figure(figsize=(4.5, 3.2), layout="constrained")
    axes = figure.subplots()
    drawn = [
        _against_smoothing(axes, result, "ece", "ECE", 0),
        _against_smoothing(axes, result, "gap", "mean confidence − accuracy", 1),
    ]
    if not any(drawn):
        return None
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set_ylabel("share")
    axes.legend()
    caption = f"Calibration on {test} against ε: above 0 the gap is overconfidence. {_BARS}"
    return caption, figure


def reliability(test: str, result: dict) -> tuple[str, Figure] | None:
    """One reliability diagram per ε: accuracy against confidence; larger marks hold more tokens."""
    panels = {
        epsilon: [row for row in setting["reliability"] if row["count"]]
        for epsilon, setting in result["by_smoothing"].items()
    }
    panels = {epsilon: rows for epsilon, rows in panels.items() if rows}
    if not panels:
        return None
    columns = min(3, len(panels))
    lines = -(-len(panels) // columns)
    figure = Figure(figsize=(2.5 * columns + 0.3, 2.7 * lines), layout="constrained")
    grid = figure.subplots(lines, columns, sharex=True, sharey=True, squeeze=False)
    for axes in grid.flat[len(panels) :]:
        axes.set_visible(False)
    for index, (axes, (epsilon, rows)) in enumerate(zip(grid.flat, panels.items(), strict=False)):
        colour, marker, _ = _look(index)
        total = sum(row["count"] for row in rows)
        x = [row["confidence"] for row in rows]
        y = [row["accuracy"] for row in rows]
        axes.plot([0, 1], [0, 1], color="grey", linewidth=0.8, linestyle=":")
        axes.plot(x, y, color=colour, linewidth=1)
        sizes = [12 + 160 * row["count"] / total for row in rows]
        axes.scatter(x, y, s=sizes, color=colour, marker=marker, edgecolor="white", zorder=3)
        axes.set(title=f"ε = {float(epsilon):g}", xlim=(0, 1.03), ylim=(0, 1.03), aspect="equal")
    figure.supxlabel("confidence")
    figure.supylabel("accuracy")
    caption = (
        f"Reliability on {test}, tokens of all seeds: below the dotted line the model claims more "
        "than it hits. Larger marks hold more tokens."
    )
    return caption, figure


def learning_curves(curves: dict[str, list[list[dict]]]) -> tuple[str, Figure] | None:
    """Validation perplexity and BLEU against the training step, one line per run."""
    fields = {"validation_perplexity": "perplexity", "validation_bleu": "BLEU"}
    present = [
        field
        for field in fields
        if any(field in record for runs in curves.values() for run in runs for record in run)
    ]
    if not present:
        return None
    figure = Figure(figsize=(3.75 * len(present) + 0.5, 3.2), layout="constrained")
    grid = figure.subplots(1, len(present), squeeze=False)[0]
    for axes, field in zip(grid, present, strict=True):
        for index, (epsilon, runs) in enumerate(curves.items()):
            colour, marker, dash = _look(index)
            label: str | None = f"ε = {float(epsilon):g}"
            for run in runs:
                points = [
                    (r["step"], r[field]) for r in run if r.get(field) is not None and "step" in r
                ]
                if points:
                    x, y = zip(*points, strict=True)
                    axes.plot(x, y, color=colour, marker=marker, linestyle=dash, markersize=3,
                              linewidth=1, label=label)  # fmt: skip
                    label = None
        axes.set(xlabel="step", ylabel=f"validation {fields[field]}")
        if field == "validation_perplexity":
            axes.set_yscale("log")
            # 2, 5, 10: not 2×10⁰.
            axes.yaxis.set_major_formatter(LogFormatter())
            axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(1.5, 0.6)))
    grid[0].legend()
    return "Validation during training, one line per run.", figure


def svg(figure: Figure) -> str:
    """The figure as a standalone SVG document without a date."""
    with matplotlib.rc_context(_STYLE):
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def png(figure: Figure) -> bytes:
    """The figure as PNG, 150 dots per inch."""
    with matplotlib.rc_context(_STYLE):
        data = io.BytesIO()
        figure.savefig(data, format="png", dpi=150, metadata={"Software": None})
    return data.getvalue()


def inline(document: str, name: str, caption: str) -> str:
    """An SVG document as an element of an HTML page that has several.

    The prologue and metadata go, ids get the figure's name (they must differ within a page), and
    the caption becomes its description for who cannot see it.
    """
    body = document[document.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r'\bid="([^"]*)"', rf'id="{name}-\1"', body)
    body = re.sub(r'href="#([^"]*)"', rf'href="#{name}-\1"', body)
    body = re.sub(r"url\(#([^)]*)\)", rf"url(#{name}-\1)", body)
    label = caption.replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return body.replace("<svg", f'<svg role="img" aria-label="{label}"', 1)


_BARS = "Marks: means over seeds; bars: their 95 % intervals (none with one seed); dots: runs."


def _against_smoothing(axes: Axes, result: dict, measure: str, label: str, index: int) -> bool:
    """Means with intervals, and the single runs as dots; False where nothing was measured."""
    points = [
        (float(epsilon), setting["measures"][measure])
        for epsilon, setting in result["by_smoothing"].items()
        if setting["measures"][measure]["mean"] is not None
    ]
    if not points:
        return False
    colour, marker, dash = _look(index)
    x = [epsilon for epsilon, _ in points]
    y = [summary["mean"] for _, summary in points]
    half = [
        (summary["ci95"][1] - summary["mean"]) if summary["ci95"] else 0.0 for _, summary in points
    ]
    axes.errorbar(x, y, half if any(half) else None, color=colour, marker=marker, linestyle=dash,
                  capsize=3, label=label)  # fmt: skip
    dots = [(e, v) for e, summary in points for v in summary["values"] if v is not None]
    axes.scatter([e for e, _ in dots], [v for _, v in dots], s=8, color=colour, alpha=0.5)
    axes.set(xlabel="label smoothing ε", ylabel=label, xticks=x)
    return True


def _look(index: int) -> tuple[str, str, str]:
    return (
        COLOURS[index % len(COLOURS)],
        MARKERS[index % len(MARKERS)],
        DASHES[index % len(DASHES)],
    )


def _file_name(test: str) -> str:
    return re.sub(r"[^\w.-]+", "_", test)
