"""Comparison of made-up runs: numbers by hand, honest words, one CSV row per run."""

import csv
import io
import json

import numpy as np
import pytest

from nmt_ls.errors import UserError
from nmt_ls.evaluation.calibration import calibration
from nmt_ls.evaluation.translation import translation_metrics
from nmt_ls.study.comparison import compare, results_csv, sentence, table
from nmt_ls.study.report import write_report

WORDS = [
    "der",
    "die",
    "ein",
    "Hund",
    "Mann",
    "Frau",
    "geht",
    "läuft",
    "im",
    "am",
    "Park",
    "Haus",
    "Kind",
    "spielt",
    "sieht",
]
RATES = {0.0: 0.25, 0.1: 0.15, 0.2: 0.24}


def made_up_run(label_smoothing: float, seed: int, tests=("flickr",), sentences: int = 40) -> dict:
    """A run whose share of wrong words depends on ε; the references are the same for all."""
    run = {
        "label_smoothing": label_smoothing,
        "seed": seed,
        "run": f"smoothing_{label_smoothing}_seed_{seed}",
        "results": {},
        "translations": {},
        "references": {},
    }
    for index, test in enumerate(tests):
        random = np.random.default_rng(index)
        lines = [" ".join(random.choice(WORDS, random.integers(6, 12))) for _ in range(sentences)]
        references = [[line] for line in lines]
        random = np.random.default_rng([seed, int(100 * label_smoothing), index])
        rate = RATES[label_smoothing]
        hypotheses = [
            " ".join(w if random.uniform() > rate else "falsch" for w in line.split())
            for line in lines
        ]
        confidence = np.clip(random.uniform(0.4, 1.0, 400) - label_smoothing, 0, 1)
        nll = 1.6 + label_smoothing + 0.01 * seed
        run["results"][test] = {
            **translation_metrics(hypotheses, references),
            **calibration(confidence, random.uniform(size=400) < 0.7),
            "nll_per_token": nll,
            "perplexity": float(np.exp(nll)),
            "nll_per_character": None,
            "sentences": sentences,
            "tokens": 400,
            "decode": {"beam": 5, "length_penalty": "average"},
            "checkpoint": "average",
        }
        run["translations"][test] = hypotheses
        run["references"][test] = references
    return run


def made_up_sweep(smoothing=(0.0, 0.1, 0.2), seeds=(1, 2, 3), **options) -> list[dict]:
    return [made_up_run(e, seed, **options) for e in smoothing for seed in seeds]


def only_numbers(values: dict[tuple[float, int], float]) -> list[dict]:
    """Runs without translations, that have a BLEU and nothing else."""
    return [
        {
            "label_smoothing": e,
            "seed": seed,
            "run": f"smoothing_{e}_seed_{seed}",
            "results": {"test": {"bleu": bleu, "perplexity": 5 + 4 * e}},
            "translations": {},
            "references": {},
        }
        for (e, seed), bleu in values.items()
    ]


@pytest.fixture(scope="module")
def sweep() -> list[dict]:
    return made_up_sweep()


@pytest.fixture(scope="module")
def comparison(sweep) -> dict:
    return compare(sweep, samples=200)


def test_means_and_paired_differences_by_hand():
    values = {(0.0, 1): 30.0, (0.0, 2): 32.0, (0.1, 1): 31.0, (0.1, 2): 32.6}
    result = compare(only_numbers(values))["tests"]["test"]["by_smoothing"]
    assert result["0.0"]["measures"]["bleu"]["mean"] == 31.0
    assert result["0.0"]["measures"]["bleu"]["sd"] == pytest.approx(2**0.5)
    assert result["0.0"]["differences"] is None
    bleu = result["0.1"]["differences"]["bleu"]
    assert bleu["values"] == pytest.approx([1.0, 0.6])
    assert bleu["mean"] == pytest.approx(0.8)
    # t(0.975; 1) = 12.706; the standard error is 0.2.
    assert bleu["ci95"] == pytest.approx([0.8 - 2.5412, 0.8 + 2.5412], abs=1e-3)
    assert bleu["p"] is not None and bleu["p_holm"] is None  # two seeds decide nothing
    assert "bootstrap" not in bleu
    assert result["0.1"]["measures"]["chrf"] == {
        "n": 0,
        "mean": None,
        "sd": None,
        "ci95": None,
        "values": [None, None],
    }


def test_whole_comparison(sweep, comparison):
    assert (comparison["baseline"], comparison["primary"]) == (0.0, 0.1)
    test = comparison["tests"]["flickr"]
    assert list(test["by_smoothing"]) == ["0.0", "0.1", "0.2"]
    middle = test["by_smoothing"]["0.1"]
    assert middle["seeds"] == [1, 2, 3]
    assert sum(row["count"] for row in middle["reliability"]) == 3 * 400
    bleu = middle["differences"]["bleu"]
    assert bleu["bootstrap"]["seeds"] == 3
    assert bleu["bootstrap"]["difference"] == pytest.approx(bleu["mean"])
    for contrast in ("0.1", "0.2"):
        difference = test["by_smoothing"][contrast]["differences"]["bleu"]
        assert difference["p"] <= difference["p_holm"] <= 1
        assert difference["bootstrap"]["p"] <= difference["bootstrap"]["p_holm"] <= 1
    gap = middle["measures"]["gap"]["mean"]
    assert gap == pytest.approx(
        middle["measures"]["mean_confidence"]["mean"] - middle["measures"]["accuracy"]["mean"]
    )
    json.dumps(comparison, allow_nan=False)
    assert compare(sweep, samples=200) == comparison
    assert compare(list(reversed(sweep)), samples=200) == comparison


def test_examples_are_where_the_models_differ(comparison):
    examples = comparison["tests"]["flickr"]["examples"]
    spreads = [max(e["chrf"].values()) - min(e["chrf"].values()) for e in examples]
    assert len(examples) == 6
    assert spreads == sorted(spreads, reverse=True)
    assert {e["seed"] for e in examples} == {1}
    drawn = comparison["tests"]["flickr"]["drawn"]
    assert [e["sentence"] for e in drawn] == sorted({e["sentence"] for e in drawn})
    assert len(drawn) == 4 and all(0 <= e["sentence"] < 40 for e in drawn)
    # By chance, and not by what the models say: the same in another study of the test set.
    other = compare(made_up_sweep((0.1, 0.2), (2,)), samples=20)["tests"]["flickr"]["drawn"]
    assert [e["sentence"] for e in other] == [e["sentence"] for e in drawn]
    assert {e["seed"] for e in other} == {2} and other[0]["chrf"].keys() == {"0.1", "0.2"}


def test_one_seed_has_only_the_bootstrap_over_sentences():
    comparison = compare(made_up_sweep((0.0, 0.1), (1,)), samples=200)
    bleu = comparison["tests"]["flickr"]["by_smoothing"]["0.1"]["differences"]["bleu"]
    assert (bleu["ci95"], bleu["p"], bleu["p_holm"]) == (None, None, None)
    assert bleu["bootstrap"]["ci95"] and bleu["bootstrap"]["seeds"] == 1
    assert comparison["pooled"][""]["decision"]["verdicts"] == {"0.1": "too few seeds"}
    assert comparison["pooled"][""]["calibration"]["decided"] is False
    text = table(comparison, "flickr")
    assert "±" not in text and "over sentences]" in text


@pytest.mark.parametrize("seeds", [(1,), (1, 2, 3)])
def test_a_single_sentence_is_resampled_for_no_interval(tmp_path, seeds):
    runs = made_up_sweep((0.0, 0.1), seeds, sentences=1)
    comparison = compare(runs, samples=20)
    bleu = comparison["tests"]["flickr"]["by_smoothing"]["0.1"]["differences"]["bleu"]
    assert (bleu["bootstrap"]["ci95"], bleu["bootstrap"]["p"], bleu["bootstrap"]["p_holm"]) == (
        None, None, None,
    )  # fmt: skip
    text = sentence(comparison, "flickr")
    assert ("(one seed, one sentence: no interval)" in text) is (seeds == (1,))
    cells = table(comparison, "flickr").splitlines()[-1].split()
    assert (cells[-1] == "–") is (seeds == (1,))
    write_report(tmp_path, comparison, runs, title="", protocol={})


def test_one_smoothing_is_nothing_to_compare():
    comparison = compare(only_numbers({(0.1, 1): 30.0, (0.1, 2): 31.0}))
    assert comparison["baseline"] == 0.1 and comparison["primary"] is None
    assert sentence(comparison, "test") == "On test there is only ε = 0.1: nothing to compare."
    assert table(comparison, "test").splitlines()[-1].split()[:3] == ["0.1", "2", "30.50"]


def test_the_bootstrap_never_decides():
    # Three seeds that agree on the sign and sentences that leave no doubt; over seeds p is 0.10.
    runs = made_up_sweep((0.0, 0.1), (1, 2, 3))
    for run, bleu in zip(runs, (30.0, 30.0, 30.0, 30.2, 30.9, 30.7), strict=True):
        run["results"]["flickr"]["bleu"] = bleu
    block = compare(runs, samples=200)["pooled"][""]
    bleu = block["by_smoothing"]["0.1"]["differences"]["bleu"]
    assert bleu["bootstrap"]["p"] < 0.01 < 0.05 < bleu["p"]
    assert block["decision"] == {
        "differs": [],
        "verdicts": {"0.1": "no clear difference"},
        "alpha": 0.05,
        "seeds_needed": 3,
    }


def test_test_sets_together_are_one_set():
    runs = made_up_sweep((0.0, 0.1), (1, 2, 3), tests=("flickr", "coco"), sentences=20)
    for run in runs[::2]:  # evaluated once more, by hand
        run["results"]["validation"] = run["results"]["coco"] | {"bleu": 99.0}
    comparison = compare(runs, samples=30)
    assert list(comparison["tests"]) == ["flickr", "coco", "validation"]
    block = comparison["pooled"][""]
    assert block["tests"] == ["flickr", "coco"]
    assert block["test"] == "flickr and coco together"
    assert (block["sentences"], block["tokens"], block["left_out"]) == (40, 800, [])
    for run, bleu in zip(
        runs[:3], block["by_smoothing"]["0.0"]["measures"]["bleu"]["values"], strict=True
    ):
        both = [run[kind]["flickr"] + run[kind]["coco"] for kind in ("translations", "references")]
        assert bleu == pytest.approx(translation_metrics(*both)["bleu"])
    assert block["by_smoothing"]["0.1"]["differences"]["bleu"]["bootstrap"]["seeds"] == 3
    assert all(test["decision"] is None for test in comparison["tests"].values())
    assert block["decision"]["verdicts"].keys() == {"0.1"}
    for example in block["examples"]:
        spread = list(example["chrf"].values())
        assert example["test"] in ("flickr", "coco") and spread[0] != spread[1]
        of_test = comparison["tests"][example["test"]]["examples"]
        assert of_test[0]["chrf"].keys() == example["chrf"].keys()
    first = block["examples"][0]
    assert any(first == other for t in ("flickr", "coco") for other in
               comparison["tests"][t]["examples"])  # fmt: skip
    json.dumps(comparison, allow_nan=False)


def test_a_run_that_is_not_evaluated_on_all_sets_is_left_out_and_named():
    runs = made_up_sweep((0.0, 0.1), (1, 2), tests=("flickr", "coco"), sentences=5)
    del runs[3]["results"]["coco"]
    block = compare(runs, samples=5)["pooled"][""]
    assert block["left_out"] == ["smoothing_0.1_seed_2"]
    assert block["by_smoothing"]["0.1"]["seeds"] == [1]


def test_nothing_is_decided_on_sets_of_ones_own(caplog):
    """As `nmt-ls evaluate RUN --source … --beam 1` stores them, of some runs or of all."""
    runs = [run | {"own": ["mine"]} for run in made_up_sweep(tests=("flickr", "mine"))]
    found = compare(runs, samples=20)
    assert found["pooled"][""]["tests"] == ["flickr"]
    assert found["tests"]["flickr"]["decision"] is not None
    assert found["tests"]["mine"]["decision"] is None
    runs[0]["references"] = runs[0]["references"] | {"mine": [["x"]] * 40}
    assert list(compare(runs, samples=20)["tests"]) == ["flickr"]
    assert "mine is left out: " in caplog.text


def test_sets_that_no_run_has_all_of_are_not_pooled():
    runs = made_up_sweep((0.0, 0.1), (1, 2, 3), tests=("a", "b", "c"))
    for place, run in enumerate(runs):
        del run["results"]["cab"[place % 3]]
    (block,) = compare(runs)["pooled"].values()
    assert block["tests"] == ["a", "b"]
    assert len(block["left_out"]) == 4


def test_one_test_set_is_pooled_as_it_is(comparison):
    test, pooled = comparison["tests"]["flickr"], comparison["pooled"][""]
    assert pooled == test
    assert test["decision"]["differs"] == [
        e for e in ("0.1", "0.2") if test["by_smoothing"][e]["differences"]["bleu"]["p_holm"] < 0.05
    ]


def grid() -> list[dict]:
    runs = []
    for dropout in (0.3, 0.0):
        for run in made_up_sweep((0.0, 0.1), (1, 2, 3), sentences=8):
            name = f"dropout_{dropout}_{run['run']}"
            runs.append(run | {"run": name, "settings": {"model.dropout": dropout}})
    return runs


def test_a_grid_is_compared_within_its_settings():
    runs = grid()
    runs[0]["results"]["flickr"]["bleu"] = 1.0
    comparison = compare(runs, samples=10)
    assert list(comparison["tests"]) == [
        "flickr (model.dropout=0.0)",
        "flickr (model.dropout=0.3)",
    ]
    assert list(comparison["pooled"]) == ["model.dropout=0.0", "model.dropout=0.3"]
    block = comparison["tests"]["flickr (model.dropout=0.3)"]
    assert (block["test"], block["settings"]) == ("flickr", {"model.dropout": 0.3})
    assert block["by_smoothing"]["0.0"]["measures"]["bleu"]["values"][0] == 1.0
    other = comparison["tests"]["flickr (model.dropout=0.0)"]
    assert other["by_smoothing"]["0.0"]["measures"]["bleu"]["values"][0] > 1.0
    assert compare(list(reversed(runs)), samples=10) == comparison
    rows = list(csv.DictReader(io.StringIO(results_csv(runs))))
    assert {row["model.dropout"] for row in rows} == {"0.0", "0.3"}


def test_one_setting_for_all_needs_no_label():
    runs = grid()[:6]
    comparison = compare(runs, samples=10)
    assert list(comparison["tests"]) == ["flickr"] and list(comparison["pooled"]) == [""]
    assert comparison["tests"]["flickr"]["settings"] == {"model.dropout": 0.3}


def test_settings_have_their_own_baseline_where_the_common_one_is_missing():
    runs = [run for run in grid() if run["settings"]["model.dropout"] or run["label_smoothing"]]
    runs[0:3] = [run | {"settings": {"model.dropout": None}} for run in runs[0:3]]
    comparison = compare(runs, samples=5)
    baselines = {label: block["baseline"] for label, block in comparison["pooled"].items()}
    assert baselines == {
        "model.dropout=0.0": 0.1,
        "model.dropout=0.3": 0.1,
        "model.dropout=null": 0.0,
    }
    assert list(baselines)[-1] == "model.dropout=null"
    assert comparison["baseline"] == 0.0


def test_twice_the_same_cell_of_a_grid_is_refused():
    runs = grid()
    runs[1] = runs[0] | {"run": "again"}
    with pytest.raises(UserError, match=r"both ε=0\.0, seed 1, model\.dropout=0\.3"):
        compare(runs)


def test_table_has_the_numbers_of_the_comparison(comparison):
    rows = table(comparison, "flickr").splitlines()[2:]
    for row, setting in zip(
        rows, comparison["tests"]["flickr"]["by_smoothing"].values(), strict=True
    ):
        bleu = setting["measures"]["bleu"]
        assert f"{bleu['mean']:.2f} ± {bleu['sd']:.2f}" in row
    assert "[" not in rows[0] and "[" in rows[1]


def test_the_truth_is_a_last_row(sweep):
    truth = {"flickr": {"perplexity_floor": 3.21, "bleu_oracle": 77.7}}
    comparison = compare(sweep, truth=truth, samples=20)
    last = table(comparison, "flickr").splitlines()[-1]
    assert last.startswith("the truth") and "3.21" in last and "77.70" in last


def test_baseline_can_be_chosen():
    runs = made_up_sweep((0.1, 0.2), (1,))
    assert compare(runs, samples=20)["baseline"] == 0.1
    chosen = compare(runs, baseline=0.2, samples=20)
    assert (chosen["baseline"], chosen["primary"]) == (0.2, 0.1)
    with pytest.raises(UserError, match="baseline ε=0.3"):
        compare(runs, baseline=0.3)


def test_a_diverged_run_is_not_left_out_of_the_mean():
    runs = only_numbers({(0.0, 1): 30.0, (0.0, 2): 31.0, (0.1, 1): 30.0, (0.1, 2): 31.0})
    runs[2]["results"]["test"]["perplexity"] = float("inf")
    comparison = compare(runs)
    summary = comparison["tests"]["test"]["by_smoothing"]["0.1"]["measures"]["perplexity"]
    assert (summary["mean"], summary["n"], summary["values"][0]) == (None, 2, None)
    json.dumps(comparison, allow_nan=False)
    assert "perplexity" not in sentence(comparison, "test")
    assert results_csv(runs).splitlines()[3].split(",")[6] == ""  # no infinity either


def test_a_run_that_blew_up_is_compared_as_it_is_stored():
    """Its perplexity is null in results.json, and no float has room for the un-mixed one."""
    runs = only_numbers({(0.0, 1): 30.0, (0.0, 2): 31.0, (0.1, 1): 30.0, (0.1, 2): 31.0})
    for run in runs:
        run["results"]["test"] |= {"nll_per_token": 1.6}
        run["results"]["test"]["adjusted"] = {"unmixed": {"nll_per_token": 1.5}}
    runs[2]["results"]["test"] |= {"perplexity": None, "nll_per_token": 900.0}
    runs[2]["results"]["test"]["adjusted"] = {"unmixed": {"nll_per_token": 900.0}}
    comparison = compare(runs)
    summary = comparison["tests"]["test"]["by_smoothing"]["0.1"]["measures"]["perplexity"]
    assert (summary["mean"], summary["n"]) == (None, 2)
    assert "perplexity" not in sentence(comparison, "test")
    assert "0.1" in table(comparison, "test")


def test_floors_are_those_of_the_runs_own_subwords():
    runs = only_numbers({(0.0, 1): 30.0, (0.1, 1): 31.0, (0.0, 2): 30.0, (0.1, 2): 31.0})
    for run in runs:
        run["settings"] = {"data.noise": 0.2 * (run["seed"] == 2)}
        run["truth"] = {"test": {"nll_floor": 1.0 + run["settings"]["data.noise"]}}
    tests = compare(runs)["tests"]
    assert [block["truth"] for block in tests.values()] == [{"nll_floor": 1.0}, {"nll_floor": 1.2}]
    runs[0]["truth"] = {"test": {"nll_floor": 9.0}}
    assert next(iter(compare(runs)["tests"].values()))["truth"] is None


def test_what_cannot_be_compared_is_refused():
    with pytest.raises(UserError, match="no finished run"):
        compare([])
    run = made_up_run(0.0, 1)
    with pytest.raises(UserError, match="both ε=0.0, seed 1"):
        compare([run, run])
    other = made_up_run(0.1, 1)
    other["references"]["flickr"] = [["anders"]] * 40
    with pytest.raises(UserError, match="different references of flickr"):
        compare([run, other])


def test_csv_has_one_row_per_run(sweep):
    rows = list(csv.DictReader(io.StringIO(results_csv(sweep))))
    assert len(rows) == 9
    assert rows[0]["test"] == "flickr" and rows[0]["nll_per_character"] == ""
    assert float(rows[4]["bleu"]) == sweep[4]["results"]["flickr"]["bleu"]
    assert [row["run"] for row in rows] == [run["run"] for run in sweep]
    two = made_up_sweep((0.0, 0.1), (1,), tests=("flickr", "coco"), sentences=5)
    del two[1]["results"]["coco"]
    rows = list(csv.DictReader(io.StringIO(results_csv(two))))
    assert len(rows) == 2
    assert float(rows[0]["coco.bleu"]) == two[0]["results"]["coco"]["bleu"]
    assert rows[1]["coco.bleu"] == "" and "test" not in rows[0]
    assert results_csv([]) == "run\n"
