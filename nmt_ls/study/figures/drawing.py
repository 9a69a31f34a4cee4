"""How figures look, and how they are written: matplotlib without a display.

Colours are Okabe & Ito's, which colour-blind eyes can part; every line also has its own marker and
dash, so that nothing is lost in black and white.
"""

import dataclasses
import hashlib
import io
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from nmt_ls.evaluation.significance import over_seeds
from nmt_ls.study.strength import Strength

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = "osD^vPX"
DASHES: tuple[Any, ...] = ("-", "--", "-.", ":", (0, (5, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (1, 2)))

PANEL = (3.5, 2.7)
"""Inches of a panel: one fills the width of a telephone, three that of a screen."""

LONGEST_LABEL = 100
"""Bytes of a label in a file's name; file systems end at 255, and more is put around it."""

_STYLE: Any = {
    "axes.axisbelow": True,
    "axes.edgecolor": "#666666",
    "axes.grid": True,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10.5,
    "axes.titleweight": "bold",
    "axes.titlepad": 8,
    "axes.labelsize": 9.5,
    "axes.unicode_minus": True,
    "font.family": ["DejaVu Sans"],
    "font.size": 9.5,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 1.5,
    "lines.markersize": 5.5,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    # Text stays text: small files that can be searched and read aloud.
    "svg.fonttype": "none",
    # Ids that depend on the content alone, so that rebuilding a report changes nothing.
    "svg.hashsalt": "nmt_ls",
}

Summary = Mapping[str, Any]
"""What `significance.over_seeds` returns, and `values`, one per seed."""


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of the report."""

    kind: str
    """What it shows; pictures of one kind are compared with each other."""
    label: str
    """Of what: a block's label; empty: of the whole sweep."""
    section: str
    """Which part of the report it stands in."""
    caption: str
    figure: Figure
    wide: bool = False
    """Several panels side by side that should not be shrunk to a telephone's width."""

    @property
    def name(self) -> str:
        """Of its files, without ending."""
        return "_".join(filter(None, [self.kind, file_name(self.label)]))


def style() -> Any:
    """The context to draw and to write figures in."""
    return matplotlib.rc_context(_STYLE)


def panel(title: str, across: str = "") -> tuple[Figure, Axes]:
    """A figure of one panel; what is measured stands over it, where it is read first.

    Args:
      title: what is measured.
      across: what it is measured against.
    """
    figure = Figure(figsize=PANEL, layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(across)
    return figure, axes


def look(index: int) -> dict[str, Any]:
    """Colour, marker and dash of the i-th line."""
    return {
        "color": COLOURS[index % len(COLOURS)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
    }


def summaries(values: Mapping[str, Sequence[float]]) -> dict[str, Summary]:
    """Mean and interval over the seeds of each ε."""
    return {e: {**over_seeds(list(v)), "values": list(v)} for e, v in values.items() if v}


def against_smoothing(
    axes: Axes, by_smoothing: Mapping[str, Summary], index: int = 0, label: str | None = None
) -> bool:
    """A line over ε with 95 % intervals and a dot per run; whether there was anything to draw."""
    points = [(float(e), s) for e, s in by_smoothing.items() if s["mean"] is not None]
    if not points:
        return False
    x, y = [e for e, _ in points], [s["mean"] for _, s in points]
    low, high = zip(*[(m - (s["ci95"] or (m, m))[0], (s["ci95"] or (m, m))[1] - m)
                      for m, (_, s) in zip(y, points, strict=True)], strict=True)  # fmt: skip
    intervals = any(s["ci95"] for _, s in points)
    axes.errorbar(x, y, [low, high] if intervals else None, capsize=3, elinewidth=1, label=label,
                  **look(index))  # fmt: skip
    dots = [(e, v) for e, s in points for v in s.get("values", ()) if v is not None]
    if len(dots) > len(points):
        axes.scatter(
            [e for e, _ in dots], [v for _, v in dots], s=7, color=look(index)["color"], alpha=0.45
        )
    drawn = getattr(axes, "strengths_drawn", set()) | set(x)
    axes.strengths_drawn = drawn  # type: ignore[attr-defined]
    smoothing_ticks(axes, sorted(drawn))
    return True


def smoothing_ticks(axes: Axes, values: Sequence[float]) -> None:
    """A tick at each ε; a number where it does not run into the one before."""
    values = sorted(set(values))
    span = (values[-1] - values[0]) or 1.0
    labels, last = [], -math.inf
    for value in values:
        clear = value - last >= 0.09 * span
        labels.append(f"{value:g}" if clear else "")
        last = value if clear else last
    axes.set_xticks(values, labels)


def no_magnifying_glass(axes: Axes, span: float) -> None:
    """Widen the y axis to at least that span, so that a difference of no weight looks like none."""
    low, high = axes.get_ylim()
    if high - low < span:
        axes.set_ylim((low + high - span) / 2, (low + high + span) / 2)


def small_multiples(count: int, height: float) -> tuple[Figure, list[Axes], bool]:
    """A figure of so many square panels, at most four in a row.

    Args:
      count: of panels.
      height: of a row over its panels' width, for titles and labels (inches).

    Returns:
      The figure, its panels, and whether it is wider than a telephone.
    """
    columns = min(4, count)
    rows = -(-count // columns)
    side = PANEL[0] / 2 if columns <= 2 else 2.35
    width = PANEL[0] if columns <= 2 else side * columns + 0.2
    figure = Figure(figsize=(width, (side + height) * rows), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.1)  # type: ignore[union-attr, call-arg]
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes in grid[count:]:
        axes.set_visible(False)
    return figure, grid[:count], columns > 2


def by_category(
    axes: Axes,
    lines: Mapping[str, Sequence[float | None]],
    categories: Sequence[str],
    strength: Strength,
) -> None:
    """A line per ε, or β, over named categories; gaps where there is no value."""
    for index, (epsilon, values) in enumerate(lines.items()):
        axes.plot(
            range(len(categories)),
            [math.nan if v is None else v for v in values],
            label=strength.value(epsilon),
            **look(index),
        )
    axes.set_xticks(range(len(categories)), list(categories))


def legend_below(figure: Figure, axes: Axes, columns: int = 2, **options: Any) -> None:
    """The legend under the axes, where it hides nothing; the figure grows by what it needs."""
    handles, labels = axes.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=columns, **options)
        figure.set_figheight(figure.get_figheight() + 0.21 * -(-len(handles) // columns))


def columns_for(lines: int) -> int:
    """Columns of a legend of so many short entries in one panel."""
    return 2 if lines in (2, 4) else 3


def svg(figure: Figure) -> str:
    """The figure as a standalone SVG document without a date."""
    with style():
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None})
        # As laid out once: the PNG is the same picture, in less time.
        figure.set_layout_engine("none")
    return text.getvalue()


def png(figure: Figure) -> bytes:
    """The figure as PNG, 150 dots per inch."""
    with style():
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


def file_name(text: str) -> str:
    """Text as part of a file's name and of an element's id; what is too long is cut and hashed."""
    name = re.sub(r"[^\w.-]+", "_", text).strip("_")
    cut = name.encode()[:LONGEST_LABEL].decode(errors="ignore")
    return cut if cut == name else hashed(cut, text)


def hashed(name: str, text: str) -> str:
    """A name that alone does not say which text it is of."""
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:10]}"
