"""The tables of a comparison for a paper: LaTeX with booktabs."""

import re
from typing import Any

from nmt_ls.study.wording import table_rows

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "%": r"\%",
    "&": r"\&",
    "#": r"\#",
    "$": r"\$",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"$<$",
    ">": r"$>$",
    "±": r"$\pm$",
    "−": r"$-$",
    "ε": r"$\varepsilon$",
    "β": r"$\beta$",
    "Δ": r"$\Delta$",
    "→": r"$\to$",
    "≥": r"$\ge$",
    "…": r"\ldots{}",
    "–": "--",
    "’": "'",
}


def escape(text: str) -> str:
    """Text that LaTeX prints as it is, with any engine."""
    return re.sub("|".join(map(re.escape, _SPECIAL)), lambda m: _SPECIAL[m[0]], text)


def latex_table(comparison: dict[str, Any], label: str, note: str) -> str:
    """One `table` environment for one block of comparison["tests"]; needs booktabs.

    Args:
      comparison: the content of comparison.json.
      label: the block's key.
      note: what the caption says after it.
    """
    headers, rows = table_rows(comparison, label)
    lines = [
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape(f'{label}. {note}' if label else note)}}}",
        rf"  \label{{tab:smoothing-{re.sub(r'[^A-Za-z0-9]+', '-', label).strip('-') or 'all'}}}",
        rf"  \begin{{tabular}}{{@{{}}l{'r' * (len(headers) - 1)}@{{}}}}",
        r"    \toprule",
        "    " + _row(headers),
        r"    \midrule",
        *("    " + _row(row) for row in rows),
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return " & ".join(map(escape, cells)) + r" \\"
