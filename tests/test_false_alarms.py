"""The rule that decides keeps its promise on studies in which there is nothing to find."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from nmt_ls.evaluation.significance import paired_over_seeds
from nmt_ls.study.decision import decide
from nmt_ls.study.false_alarms import SMOOTHING, Rates, false_alarms, null_studies, table

STUDIES = 2000
# Of 5 %, 2.5 standard errors more than half a point off: 0.05 + 2.5·√(0.05·0.95/2000).
MOST = 0.062


@pytest.fixture(scope="module")
def rates() -> Rates:
    return false_alarms(STUDIES, seeds=5)


def test_the_headline_is_false_in_no_more_than_five_percent(rates):
    assert rates.decided <= MOST
    # It is not bought by never deciding: Holm loses little of what it may spend.
    assert rates.decided > 0.03
    assert rates.lowest <= MOST


def test_without_holm_or_with_resampled_seeds_it_would_be_false_far_more_often(rates):
    assert 0.038 < rates.one_contrast < MOST
    assert rates.uncorrected > 0.15
    assert rates.one_contrast_bootstrap > 0.15
    assert rates.bootstrap > 0.4 and rates.bootstrap_holm > 0.2


def test_the_page_says_what_was_counted(rates):
    page = (Path(__file__).parents[1] / "docs" / "statistics.md").read_text(encoding="utf-8")
    rows = [line.split("|")[1:-1] for line in page.splitlines() if line.startswith("| ")]
    start = next(i for i, row in enumerate(rows) if row[0].startswith(" false alarms"))
    column = [cell.strip() for cell in rows[start]].index("5 seeds")
    shown = [row[column].strip() for row in rows[start + 1 : start + 8]]
    names = ("decided", "uncorrected", "bootstrap", "bootstrap_holm", "one_contrast")
    names += ("one_contrast_bootstrap", "lowest")
    assert shown == [f"{100 * getattr(rates, name):.1f}" for name in names]


def test_studies_are_paired_by_seed_and_normal():
    scores = np.array(list(null_studies(400, seeds=5)))  # [studies, ε, seed]
    assert scores.shape == (400, 7, 5)
    between = np.corrcoef(scores[:, 0].ravel(), scores[:, 3].ravel())[0, 1]
    assert between == pytest.approx(0.5, abs=0.06)  # equal spread of what is shared and what not
    differences = (scores[:, 1] - scores[:, 0]).ravel()
    assert stats.shapiro(differences).pvalue > 0.01


def test_a_real_difference_is_found():
    found = 0
    for scores in null_studies(100, seeds=5, seed=1):
        scores[2] += 2.0
        of = {e: dict(enumerate(row)) for e, row in zip(SMOOTHING, scores, strict=True)}
        decision = decide({e: paired_over_seeds(of[e], of["0.0"]) for e in SMOOTHING[1:]})
        found += decision["verdicts"][SMOOTHING[2]] == "higher"
    assert found > 80


def test_table_names_every_rule_and_number_of_seeds():
    lines = table(4, [3, 7]).splitlines()
    assert "3 seeds" in lines[0] and "7 seeds" in lines[0]
    assert len(lines) == 2 + len(Rates.__annotations__)
