"""A comparison in words, tables and CSV: the numbers of comparison.json, rounded for people."""

import csv
import io
import math
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

ALPHA = 0.05
COLUMNS = (
    "bleu",
    "chrf",
    "ter",
    "perplexity",
    "nll_per_token",
    "nll_per_character",
    "ece",
    "mean_confidence",
    "accuracy",
    "sentences",
    "tokens",
    "bleu_signature",
)
_MISSING = "–"


def key(label_smoothing: float) -> str:
    """How an ε is written as a key of comparison.json: `0.0`, `0.1`."""
    return str(float(label_smoothing))


def finite(value: float | None) -> float | None:
    """JSON has no NaN and no infinity; they become null."""
    return value if value is not None and math.isfinite(value) else None


def measured(results: dict, measure: str) -> float | None:
    """One number of a test set's results; the signed calibration gap follows from two of them."""
    if measure == "gap" and "gap" not in results:
        confidence, accuracy = results.get("mean_confidence"), results.get("accuracy")
        return None if confidence is None or accuracy is None else confidence - accuracy
    return results.get(measure)


def number(value: float | None, digits: int = 2, signed: bool = False) -> str:
    """A number with a true minus sign; a dash where there is none."""
    if value is None:
        return _MISSING
    text = f"{value:{'+' if signed else ''}.{digits}f}"
    return text.replace("-", "−")


def interval(bounds: Sequence[float] | None, digits: int = 2, signed: bool = True) -> str:
    """`+0.20 … +1.00`."""
    return " … ".join(number(bound, digits, signed) for bound in bounds) if bounds else _MISSING


def mean_sd(summary: dict, digits: int = 2) -> str:
    """`31.24 ± 0.15`; without ± where one seed leaves no standard deviation."""
    text = number(summary["mean"], digits)
    return text if summary["sd"] is None else f"{text} ± {number(summary['sd'], digits)}"


def p_value(p: float | None) -> str:
    """`= 0.004`, `< 0.001`."""
    if p is None:
        return _MISSING
    return "< 0.001" if p < 0.001 else f"= {p:.3f}"


def evidence(difference: dict) -> dict | None:
    """What stands behind a BLEU or chrF difference: the t-test over seeds, or, with one seed,
    the bootstrap over its sentences; `difference`, `ci95`, `p`, `p_holm` and `over`."""
    if difference["ci95"] is not None:
        return difference | {"difference": difference["mean"], "over": "seeds"}
    if difference.get("bootstrap"):
        return difference["bootstrap"] | {"over": "sentences"}
    return None


def table_rows(comparison: dict, test: str) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of the table of one test set, one row per ε and one for the truth."""
    result = comparison["tests"][test]
    base = float(comparison["baseline"])
    settings = result["by_smoothing"]
    contrasts = [s["differences"]["bleu"] for s in settings.values() if s["differences"]]
    over = sorted({e["over"] for e in map(evidence, contrasts) if e})
    headers = [
        "ε",
        "seeds",
        "BLEU",
        "chrF",
        "perplexity",
        "ECE",
        f"ΔBLEU vs ε = {base:g} [95 % over {' or '.join(over) or 'seeds'}]",
        "p (Holm)" if len(contrasts) > 1 else "p",
    ]
    rows = []
    for epsilon, setting in settings.items():
        measures = setting["measures"]
        row = [
            f"{float(epsilon):g}",
            str(len(setting["seeds"])),
            mean_sd(measures["bleu"]),
            mean_sd(measures["chrf"]),
            mean_sd(measures["perplexity"]),
            mean_sd(measures["ece"], 4),
        ]
        difference = setting["differences"] and setting["differences"]["bleu"]
        if not difference:
            row += ["", ""]
        elif found := evidence(difference):
            row.append(f"{number(found['difference'], 2, True)} [{interval(found['ci95'])}]")
            row.append(p_value(found["p_holm"]).removeprefix("= "))
        else:
            row += [number(difference["mean"], 2, True), _MISSING]
        rows.append(row)
    if truth := result["truth"]:
        rows.append(
            [
                "the truth",
                "",
                number(truth.get("bleu_oracle")),
                number(truth.get("chrf_oracle")),
                number(truth.get("perplexity_floor")),
                "",
                "",
                "",
            ]
        )
    return headers, rows


def table(comparison: dict, test: str, style: str = "simple") -> str:
    """The table of one test set as text; `style` is a table format of tabulate's."""
    headers, rows = table_rows(comparison, test)
    return tabulate(
        rows,
        headers,
        tablefmt=style,
        disable_numparse=True,
        colalign=("left", *["right"] * (len(headers) - 1)),
    )


def sentence(comparison: dict, test: str) -> str:
    """What the primary contrast shows on a test set, in plain English and no more than it shows."""
    result = comparison["tests"][test]
    settings, base = result["by_smoothing"], key(comparison["baseline"])
    others = [epsilon for epsilon in settings if epsilon != base]
    if base not in settings or not others:
        return f"On {test} there is only ε = {float(next(iter(settings))):g}: nothing to compare."
    primary = key(comparison["primary"])
    epsilon = primary if primary in settings else others[0]
    bleu = settings[epsilon]["differences"]["bleu"]
    found = evidence(bleu)
    start, against = f"On {test}, ε = {float(epsilon):g}", f"ε = {float(base):g}"
    if found is None:
        text = f"{start} cannot be compared with {against} in BLEU: no seed was run with both"
        if bleu["n"]:
            text = f"{start} gives {number(bleu['mean'], 2, True)} BLEU over {against}"
            text += " (one seed, no stored translations: no interval)"
        return text + _perplexity(settings, base, epsilon) + "."
    gain = f"{number(found['difference'], 2, True)} BLEU"
    # With one contrast Holm's correction changes nothing and need not be named.
    holm = f" (Holm, {len(others)} contrasts)" if len(others) > 1 else ""
    if found["over"] == "seeds":
        facts = f"95 % interval {interval(found['ci95'])}, {found['n']} seeds"
        facts += f", p {p_value(found['p_holm'])}{holm}" if found["p_holm"] is not None else ""
    else:
        facts = f"95 % interval {interval(found['ci95'])}, p {p_value(found['p_holm'])}{holm}"
        facts += ", over the sentences of one seed only: other seeds may differ"
    if found["p_holm"] is not None and found["p_holm"] < ALPHA:
        text = f"{start} gives {gain} over {against} ({facts})"
    else:
        text = f"{start} shows no clear difference in BLEU from {against}: {gain} ({facts})"
    pooled = bleu.get("bootstrap")
    if found["over"] == "seeds" and pooled and _sign(pooled["ci95"]) != _sign(found["ci95"]):
        text += f", {interval(pooled['ci95'])} over seeds and sentences"
    return text + _perplexity(settings, base, epsilon) + "."


def _sign(bounds: Sequence[float]) -> int:
    """1 or −1 where an interval is all above or all below 0, else 0."""
    return (bounds[0] > 0) - (bounds[1] < 0)


def _perplexity(settings: dict, base: str, epsilon: str) -> str:
    before, after = (settings[e]["measures"]["perplexity"]["mean"] for e in (base, epsilon))
    if before is None or after is None:
        return ""
    return f"; perplexity goes from {number(before)} to {number(after)}"


def results_csv(runs: Sequence[dict[str, Any]]) -> str:
    """results.csv: one row per run. With several test sets their columns are `NAME.bleu`, …"""
    tests = list(dict.fromkeys(name for run in runs for name in run["results"]))
    rows: list[dict[str, Any]] = []
    for run in sorted(runs, key=lambda run: (run["label_smoothing"], run["seed"])):
        row = {"label_smoothing": run["label_smoothing"], "seed": run["seed"]}
        if len(tests) == 1:
            row["test"] = tests[0]
        for name in tests:
            prefix = f"{name}." if len(tests) > 1 else ""
            results = run["results"].get(name, {})
            row |= {prefix + column: results.get(column) for column in COLUMNS}
        rows.append(row | {"run": run["run"]})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["run"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
