"""A comparison in tables and CSV."""

import csv
import io
from collections.abc import Sequence
from typing import Any

from tabulate import tabulate

from nmt_ls.evaluation.formatting import MISSING, interval, mean_sd, number, p_value
from nmt_ls.evaluation.likelihood import perplexity_of
from nmt_ls.evaluation.significance import over_seeds
from nmt_ls.study.measures import MEASURES, finite, measured
from nmt_ls.study.strength import strength_in

OTHERS = ("sentences", "tokens", "bleu_signature")
"""Columns of results.csv beside the measures."""


def evidence(difference: dict) -> dict | None:
    """What stands behind a BLEU or chrF difference: the t-test over seeds, or, with one seed,
    the bootstrap over its sentences; `difference`, `ci95`, `p`, `p_holm` and `over`. None where
    there is no interval: of one seed without stored translations, or with a single one."""
    if difference["ci95"] is not None:
        return difference | {"difference": difference["mean"], "over": "seeds"}
    resampled = difference.get("bootstrap")
    if resampled and resampled["ci95"] is not None:
        return resampled | {"over": "sentences"}
    return None


def corrected_together(block: dict, over: str) -> int:
    """How many contrasts in BLEU were in the family of Holm's correction; `over`: of `evidence`."""
    contrasts = [
        s["differences"]["bleu"] for s in block["by_smoothing"].values() if s["differences"]
    ]
    if over == "sentences":
        contrasts = [d["bootstrap"] for d in contrasts if d.get("bootstrap")]
    return sum(contrast["p_holm"] is not None for contrast in contrasts)


def table_rows(comparison: dict, test: str) -> tuple[list[str], list[list[str]]]:
    """`block_rows` of one test set."""
    return block_rows(comparison["tests"][test])


def table(comparison: dict, test: str, style: str = "simple") -> str:
    """`block_table` of one test set."""
    return block_table(comparison["tests"][test], style)


def perplexities(summary: dict) -> dict:
    """Mean and standard deviation of the perplexities of which a summary over seeds has the nll."""
    return over_seeds([None if v is None else perplexity_of(v) for v in summary["values"]])


def block_rows(block: dict) -> tuple[list[str], list[list[str]]]:
    """Headers and cells of a block's table, one row per ε and one for the truth.

    Perplexity after un-mixing has a column where it was fitted.
    """
    strength = strength_in(block)
    settings = block["by_smoothing"]
    unmixed = any(s["measures"]["nll_unmixed"]["n"] for s in settings.values())
    contrasts = [s["differences"]["bleu"] for s in settings.values() if s["differences"]]
    over = sorted({e["over"] for e in map(evidence, contrasts) if e})
    headers = [
        strength.symbol,
        "seeds",
        "BLEU",
        "chrF",
        "perplexity",
        *(["un-mixed"] if unmixed else []),
        "ECE",
        f"ΔBLEU vs {strength.value(block['baseline'])} [95 % over {' or '.join(over) or 'seeds'}]",
        "p (Holm)" if any(corrected_together(block, kind) > 1 for kind in over) else "p",
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
            *([mean_sd(perplexities(measures["nll_unmixed"]))] if unmixed else []),
            mean_sd(measures["ece"], 4),
        ]
        difference = setting["differences"] and setting["differences"]["bleu"]
        if not difference:
            row += ["", ""]
        elif found := evidence(difference):
            row.append(f"{number(found['difference'], 2, True)} [{interval(found['ci95'])}]")
            row.append(p_value(found["p_holm"]).removeprefix("= "))
        else:
            row += [number(difference["mean"], 2, True), MISSING]
        rows.append(row)
    if truth := block["truth"]:
        rows.append(
            [
                "the truth",
                "",
                number(truth.get("bleu_oracle")),
                number(truth.get("chrf_oracle")),
                number(truth.get("perplexity_floor")),
                *([""] if unmixed else []),
                "",
                "",
                "",
            ]
        )
    return headers, rows


def block_table(block: dict, style: str = "simple") -> str:
    """A block's table as text; `style` is a table format of tabulate's."""
    headers, rows = block_rows(block)
    return tabulate(
        rows,
        headers,
        tablefmt=style,
        disable_numparse=True,
        colalign=("left", *["right"] * (len(headers) - 1)),
    )


def results_csv(runs: Sequence[dict[str, Any]]) -> str:
    """results.csv: one row per run.

    `label_smoothing` is its strength: ε, or `loss.beta` where the loss has no ε. With several
    test sets their columns are `NAME.bleu`, …
    """
    tests = list(dict.fromkeys(name for run in runs for name in run["results"]))
    varied = sorted({name for run in runs for name in run.get("settings") or {}})
    rows: list[dict[str, Any]] = []
    for run in sorted(runs, key=lambda run: (run["label_smoothing"], run["seed"])):
        row = {"label_smoothing": run["label_smoothing"], "seed": run["seed"]}
        row |= {name: (run.get("settings") or {}).get(name) for name in varied}
        if len(tests) == 1:
            row["test"] = tests[0]
        for name in tests:
            prefix = f"{name}." if len(tests) > 1 else ""
            results = run["results"].get(name, {})
            row |= {prefix + measure: finite(measured(results, measure)) for measure in MEASURES}
            row |= {prefix + column: results.get(column) for column in OTHERS}
        rows.append(row | {"run": run["run"]})
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["run"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
