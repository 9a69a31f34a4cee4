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
    assert bleu["p_holm"] == bleu["p"]
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


def test_words_when_it_is_clear_and_when_it_is_not():
    clear = {(0.0, s): 30.0 + 0.1 * s for s in range(1, 6)}
    clear |= {(0.1, s): 30.6 + 0.1 * s + 0.01 * (-1) ** s for s in range(1, 6)}
    comparison = compare(only_numbers(clear))
    text = sentence(comparison, "test")
    assert text.startswith("On test, ε = 0.1 gives +0.60 BLEU over ε = 0 (95 % interval +0.5")
    assert "5 seeds, p < 0.001" in text
    assert text.endswith("perplexity goes from 5.00 to 5.40.")
    unclear = {(0.0, 1): 30.0, (0.0, 2): 31.0, (0.1, 1): 30.5, (0.1, 2): 31.1}
    text = sentence(compare(only_numbers(unclear)), "test")
    assert text.startswith("On test, ε = 0.1 shows no clear difference in BLEU from ε = 0: +0.30")
    assert "−2.2" in text and "2 seeds" in text
    worse = {cell: -bleu for cell, bleu in clear.items()}
    assert "gives −0.60 BLEU" in sentence(compare(only_numbers(worse)), "test")


def test_words_of_one_seed_say_so():
    comparison = compare(made_up_sweep((0.0, 0.1), (1,)), samples=200)
    bleu = comparison["tests"]["flickr"]["by_smoothing"]["0.1"]["differences"]["bleu"]
    assert (bleu["ci95"], bleu["p"], bleu["p_holm"]) == (None, None, None)
    assert bleu["bootstrap"]["ci95"]
    assert "over the sentences of one seed only" in sentence(comparison, "flickr")
    text = table(comparison, "flickr")
    assert "±" not in text and "over sentences]" in text
    bare = compare(only_numbers({(0.0, 1): 30.0, (0.1, 1): 31.0}))
    assert "no interval" in sentence(bare, "test")
    unpaired = compare(only_numbers({(0.0, 1): 30.0, (0.1, 2): 31.0}))
    assert "no seed was run with both" in sentence(unpaired, "test")


def test_one_smoothing_is_nothing_to_compare():
    comparison = compare(only_numbers({(0.1, 1): 30.0, (0.1, 2): 31.0}))
    assert comparison["baseline"] == 0.1 and comparison["primary"] is None
    assert sentence(comparison, "test") == "On test there is only ε = 0.1: nothing to compare."
    assert table(comparison, "test").splitlines()[-1].split()[:3] == ["0.1", "2", "30.50"]


def test_several_contrasts_are_corrected_and_named(comparison):
    assert "Holm, 2 contrasts" in sentence(comparison, "flickr")
    assert "p (Holm)" in table(comparison, "flickr")
    only_two = compare(made_up_sweep((0.0, 0.1), (1, 2)), samples=50)
    assert "Holm" not in sentence(only_two, "flickr") + table(only_two, "flickr")


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
