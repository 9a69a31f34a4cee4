"""A sweep over β says β wherever one over ε says ε."""

from typing import get_args, get_type_hints

import pytest
from made_up import everything_sweep, write_sweep
from test_comparison import made_up_sweep, only_numbers

from nmt_ls.config import LossConfig
from nmt_ls.errors import UserError
from nmt_ls.study.comparison import compare, headline, sentence, table
from nmt_ls.study.figures.gains import gains
from nmt_ls.study.report import write_report
from nmt_ls.study.stored import load_runs
from nmt_ls.study.strength import STRENGTHS, losses_of, strength_in, symbol_of


def with_loss(runs: list[dict], kind: str) -> list[dict]:
    return [run | {"loss": kind} for run in runs]


def test_every_loss_has_its_words():
    assert set(STRENGTHS) == set(get_args(get_type_hints(LossConfig)["kind"]))
    assert [s.symbol for s in STRENGTHS.values()] == ["ε", "β", "β", "β"]
    assert STRENGTHS["distillation"].value("0.10") == "β = 0.1"
    assert strength_in({}).value(0.0) == "ε = 0"


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
def test_tables_and_sentences_of_beta(seeds):
    runs = with_loss(made_up_sweep(seeds=seeds), "confidence_penalty")
    comparison = compare(runs, samples=100)
    for text in (table(comparison, "flickr"), sentence(comparison, "flickr")):
        assert "β = 0" in text and "ε" not in text
    assert table(comparison, "flickr").startswith("β ")
    assert "β = 0.1" in headline(comparison)


def test_a_difference_in_words():
    values = {(0.0, 1): 30.0, (0.0, 2): 30.2, (0.0, 3): 30.4}
    values |= {(0.1, s): 33.0 + 0.2 * s + 0.01 * s**2 for s in (1, 2, 3)}
    values |= {(0.2, s): 28.0 + 0.2 * s + 0.01 * s**2 for s in (1, 2, 3)}
    text = headline(compare(with_loss(only_numbers(values), "generalized_entropy")))
    assert "β = 0.1 gives +3.25 BLEU over β = 0" in text
    assert "β = 0.2 (−1.75) differs from β = 0 in BLEU too." in text
    alone = compare(with_loss(only_numbers({(0.1, 1): 30.0}), "distillation"))
    assert headline(alone) == "On test there is only β = 0.1: nothing to compare."


def test_errors_say_it_too():
    runs = with_loss(only_numbers({(0.1, 1): 30.0, (0.2, 1): 31.0}), "distillation")
    with pytest.raises(UserError, match=r"no finished run has the baseline β=0\.3"):
        compare(runs, baseline=0.3)
    with pytest.raises(UserError, match=r"are both β=0\.1, seed 1"):
        compare([*runs, runs[0] | {"run": "another"}])


def test_a_report_of_beta_never_says_epsilon(tmp_path):
    write_sweep(tmp_path, everything_sweep(smoothing=(0.0, 0.1), seeds=(1,)))
    runs = with_loss(load_runs(tmp_path), "confidence_penalty")
    write_report(tmp_path, compare(runs, samples=50), runs, title="Penalty", protocol={})
    texts = {
        path.name: path.read_text(encoding="utf-8")
        for path in tmp_path.rglob("*")
        if path.suffix in (".md", ".html", ".tex", ".svg", ".csv")
    }
    assert not [name for name, text in texts.items() if "ε" in text or "varepsilon" in text]
    assert r"$\beta$ & seeds" in texts["table.tex"]
    assert "| run | β | seed |" in texts["report.md"]
    assert "<dt>β</dt><dd>Confidence penalty" in texts["report.html"]
    assert "β = 0, 0.1" in texts["report.html"]
    axes = [name for name, text in texts.items() if ">confidence penalty β<" in text]
    kinds = {name.split("_flickr")[0] for name in axes if name.endswith(".svg")}
    assert {"bleu", "chrf", "difference", "nll", "entropy", "ece", "gap", "empty"} <= kinds
    assert ">β = 0.1<" in texts["beam_bleu_flickr.svg"]


def test_gains_of_beta():
    runs = with_loss(made_up_sweep((0.0, 0.1), (1,)), "distillation")
    runs += [run | {"settings": {"model.dropout": 0.3}, "run": f"a{run['run']}"} for run in runs]
    for run in runs[:2]:
        run["settings"] = {"model.dropout": 0.1}
    (picture,) = gains(compare(runs, samples=50)["tests"])
    (axes,) = picture.figure.axes
    assert axes.get_title() == "BLEU gained by distillation"
    assert picture.caption.startswith("Gain over β = 0 against dropout")


def test_a_grid_over_the_loss_has_both():
    runs = []
    for kind in ("label_smoothing", "confidence_penalty"):
        values = {(0.0, 1): 30.0, (0.1, 1): 31.0}
        for run in with_loss(only_numbers(values), kind):
            settings = {"loss.kind": kind}
            runs.append(run | {"settings": settings, "run": f"{kind}_{run['run']}"})
    comparison = compare(runs)
    assert symbol_of(losses_of(comparison).values()) == "β or ε"
    first, second = comparison["tests"]
    assert "confidence_penalty" in first and table(comparison, first).startswith("β")
    assert "label_smoothing" in second and table(comparison, second).startswith("ε")
