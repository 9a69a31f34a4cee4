"""Numbers rounded for people: true minus signs, intervals, p-values."""

from collections.abc import Sequence

MISSING = "–"


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """A number with a true minus sign; a dash where there is none."""
    if value is None:
        return MISSING
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", "−")


def interval(bounds: Sequence[float] | None, digits: int = 2, signed: bool = True) -> str:
    """`+0.20 … +1.00`."""
    return " … ".join(number(bound, digits, signed) for bound in bounds) if bounds else MISSING


def mean_sd(summary: dict, digits: int = 2) -> str:
    """`31.24 ± 0.15`; without ± where one seed leaves no standard deviation."""
    text = number(summary["mean"], digits)
    return text if summary["sd"] is None else f"{text} ± {number(summary['sd'], digits)}"


def p_value(p: float | None) -> str:
    """`= 0.004`, `< 0.001`; with more digits where 0.050 would not say on which side of it."""
    if p is None:
        return MISSING
    digits = 3
    while round(p, digits) == 0.05 != p:
        digits += 1
    return "< 0.001" if p < 0.001 else f"= {p:.{digits}f}"
