"""Text and tables that LaTeX prints as they are."""

from test_comparison import made_up_sweep

from nmt_ls.study.comparison import compare
from nmt_ls.study.latex import escape, latex_table


def test_escapes_by_hand():
    assert escape("50 % of a_b & {c}") == r"50 \% of a\_b \& \{c\}"
    assert escape("\\~^<$#>") == (r"\textbackslash{}\textasciitilde{}\textasciicircum{}$<$\$\#$>$")
    assert escape("ΔBLEU −0.5 … ±1 – ε") == (
        r"$\Delta$BLEU $-$0.5 \ldots{} $\pm$1 -- $\varepsilon$"
    )


def test_a_table_of_one_test_set():
    comparison = compare(made_up_sweep((0.0, 0.1), (1, 2), tests=("news_test",)), samples=20)
    text = latex_table(comparison, "news_test", "Means.")
    assert r"\caption{news\_test. Means.}" in text
    assert r"\label{tab:smoothing-news-test}" in text
    columns = text.split(r"\begin{tabular}{@{}")[1].split("@{}}")[0]
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert len(rows) == 3 and columns == "l" + "r" * rows[0].count(" & ")
    assert text.count("{") == text.count("}")
