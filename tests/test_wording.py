"""Headlines for what was and what was not found: every word from a number."""

import math

import pytest
from test_comparison import made_up_sweep, only_numbers

from nmt_ls.evaluation.formatting import interval, mean_sd, number, p_value
from nmt_ls.study.comparison import compare, headline, sentence, table
from nmt_ls.study.wording import headlines

CLEAR = {
    (epsilon, seed): 30.0 + 0.1 * seed + gain + 0.01 * (-1) ** seed * (epsilon > 0)
    for epsilon, gain in ((0.0, 0.0), (0.1, 0.6), (0.2, -0.45))
    for seed in range(1, 6)
}


def runs_of(bleu, *, perplexity=None, unmixed=None, ece=None) -> list[dict]:
    """Runs with a BLEU, and by ε a perplexity, one after un-mixing and an ECE, each jittered."""
    runs = only_numbers(bleu)
    for run in runs:
        epsilon, jitter = run["label_smoothing"], 1 + 1e-4 * (run["seed"] % 3)
        results = run["results"]["test"]
        results["perplexity"] = (perplexity or {}).get(epsilon, 5.0) * jitter
        if unmixed:
            nll = math.log(unmixed[epsilon])
            results["adjusted"] = {"unmixed": {"nll_per_token": nll, "delta": epsilon}}
        if ece:
            results["ece"] = ece[epsilon] * jitter
    return runs


def only(bleu: dict, *smoothing: float) -> dict:
    return {cell: value for cell, value in bleu.items() if cell[0] in smoothing}


def test_a_clear_gain_in_full():
    runs = runs_of(
        only(CLEAR, 0.0, 0.1),
        perplexity={0.0: 5.1, 0.1: 5.6},
        unmixed={0.0: 5.05, 0.1: 5.0},
        ece={0.0: 0.06, 0.1: 0.02},
    )
    found = compare(runs, title="Multi30k en→de")
    # Differences 0.59, 0.61, 0.59, 0.61, 0.59: mean 0.598, ± 2.776·0.01095/√5.
    expected = (
        "On Multi30k en→de, ε = 0.1 gives +0.60 BLEU over ε = 0 (95 % CI +0.58 … +0.61, 5 seeds, "
        "p < 0.001) while perplexity rises from 5.10 to 5.60; after un-mixing it is 5.00 (5.05 for "
        "ε = 0). Best calibrated at ε = 0.1 (ECE 0.0200)."
    )
    assert headline(found) == expected
    assert headlines(found) == [expected]
    assert sentence(found, "test") == expected.replace("Multi30k en→de", "test")


def test_a_loss_is_called_one():
    worse = {cell: 60 - bleu for cell, bleu in only(CLEAR, 0.0, 0.1).items()}
    text = headline(compare(runs_of(worse, perplexity={0.1: 4.9})))
    assert "ε = 0.1 loses 0.60 BLEU against ε = 0 (95 % CI −0.61 … −0.58, 5 seeds" in text
    assert text.endswith("while perplexity falls from 5.00 to 4.90 (un-mixing was not fitted).")


def test_other_smoothings_that_differ_are_named_whether_or_not_the_first_does():
    text = headline(compare(runs_of(CLEAR)))
    assert "p < 0.001 after Holm over 2 contrasts)" in text
    assert "ε = 0.2 (−0.45) differs from ε = 0 in BLEU too." in text
    blurred = {c: b + (0.9 * (-1) ** c[1] if c[0] == 0.1 else 0) for c, b in CLEAR.items()}
    text = headline(compare(runs_of(blurred)))
    assert "ε = 0.1 shows no clear difference in BLEU from ε = 0: +0.42 (95 % CI −" in text
    assert "ε = 0.2 (−0.45) differs from ε = 0 in BLEU" in text
    assert "too" not in text


def test_two_seeds_are_shown_and_decide_nothing():
    two = {cell: bleu for cell, bleu in only(CLEAR, 0.0, 0.1).items() if cell[1] < 3}
    text = headline(compare(runs_of(two, perplexity={0.1: 6.0}, ece={0.0: 0.06, 0.1: 0.02})))
    assert "ε = 0.1 scored +0.60 BLEU against ε = 0 (95 % CI +0.47 … +0.73, 2 seeds)" in text
    assert "too few seeds to decide (3 needed); perplexity goes from 5.00 to 6.00" in text
    assert "Lowest ECE measured at ε = 0.1 (0.0200; too few seeds to tell it from others)." in text
    assert "gives" not in text and "Best" not in text


def test_one_seed_speaks_of_a_pair_of_models():
    text = headline(compare(made_up_sweep((0.0, 0.1), (1,)), samples=200))
    assert "BLEU against ε = 0 with this pair of models (95 % CI +" in text
    assert "over sentences, p = 0.005): one seed, too few to decide about ε (3 needed);" in text
    alike = made_up_sweep((0.0, 0.1), (1,))
    alike[1]["translations"] = alike[0]["translations"]
    for measure in ("bleu", "chrf"):
        alike[1]["results"]["flickr"][measure] = alike[0]["results"]["flickr"][measure]
    text = headline(compare(alike, samples=50))
    assert "+0.00 BLEU" in text and "p = 1.000, no clear difference): one seed" in text
    bare = compare(only_numbers({(0.0, 1): 30.0, (0.1, 1): 31.0}))
    assert "(one seed, no stored translations: no interval)" in headline(bare)
    unpaired = compare(only_numbers({(0.0, 1): 30.0, (0.1, 2): 31.0}))
    assert "no seed was run with both" in headline(unpaired)
    several = only_numbers({(0.0, 1): 30.0, (0.1, 1): 31.0})
    for run in several:
        run["results"]["other"] = run["results"]["test"]
    assert "in BLEU: translations are not stored" in headline(compare(several))


def test_a_claim_about_calibration_needs_seeds_that_agree():
    near = runs_of(only(CLEAR, 0.0, 0.1), ece={0.0: 0.021, 0.1: 0.020})
    near[0]["results"]["test"]["ece"] = 0.015
    assert "Lowest ECE measured at ε = 0" in headline(compare(near))
    assert "not told apart from ε = 0." in headline(compare(near)).replace(").", ".")
    assert "ECE" not in headline(compare(runs_of(CLEAR)))


def test_one_of_several_test_sets_only_describes():
    runs = made_up_sweep((0.0, 0.1), (1, 2, 3), tests=("flickr", "coco"), sentences=20)
    comparison = compare(runs, samples=20)
    text = sentence(comparison, "coco")
    assert text.startswith("On coco, ε = 0.1 scored +")
    assert "3 seeds, p =" in text and "ECE" not in text
    assert headline(comparison).startswith("On flickr and coco together, ε = 0.1 ")


def test_settings_of_a_grid_are_named():
    runs = [run | {"settings": {"model.dropout": 0.3}} for run in runs_of(only(CLEAR, 0.0, 0.1))]
    runs += [r | {"run": f"{r['run']}_", "settings": {"model.dropout": 0.0}} for r in runs]
    found = headlines(compare(runs))
    assert [text.split(", ε")[0] for text in found] == [
        "On test with model.dropout = 0",
        "On test with model.dropout = 0.3",
    ]
    words = [run | {"settings": {"data.noise": None, "loss.prior": "unigram"}} for run in runs[:10]]
    text = headline(compare(words))
    assert text.startswith("On test with data.noise = null, loss.prior = unigram, ε = 0.1 gives")


def test_a_mean_that_seeds_and_sentences_doubt_says_so():
    comparison = compare(made_up_sweep((0.0, 0.1), (1, 2, 3)), samples=50)
    bleu = comparison["pooled"][""]["by_smoothing"]["0.1"]["differences"]["bleu"]
    bleu["bootstrap"]["ci95"] = [-1.0, 30.0]
    assert ", −1.00 … +30.00 over seeds and sentences" in headline(comparison)


def test_nothing_to_compare():
    text = headline(compare(only_numbers({(0.1, 1): 30.0})))
    assert text == "On test there is only ε = 0.1: nothing to compare."


def test_a_baseline_that_was_not_measured_is_said_to_be_missing():
    cells = {(e, s): 30.0 for e in (0.0, 0.1, 0.2) for s in (1, 2, 3)}
    runs = only_numbers(cells)
    for run in runs:
        if run["label_smoothing"]:
            run["results"]["late"] = run["results"]["test"]
    comparison = compare(runs)
    assert sentence(comparison, "late") == (
        "On late, no run of the baseline ε = 0 was measured: nothing to compare."
    )
    assert headline(comparison) == (
        "On test and late together, no run of the baseline ε = 0 was measured: nothing to compare."
    )


def test_holm_names_the_contrasts_that_it_corrected_for():
    few = {cell: b for cell, b in CLEAR.items() if cell[0] < 0.2 or cell[1] < 3}
    comparison = compare(runs_of(few))
    assert "5 seeds, p < 0.001)" in headline(comparison)
    assert "Holm" not in headline(comparison) + table(comparison, "test")
    assert "p (Holm)" in table(compare(runs_of(CLEAR)), "test")
    # One ε has a single seed: its sentences speak, and were corrected for all that were resampled.
    runs = made_up_sweep(seeds=(1,)) + made_up_sweep((0.0, 0.2), seeds=(2, 3))
    comparison = compare(runs, samples=50)
    assert "after Holm over 2 contrasts): one seed" in headline(comparison)
    assert "p (Holm)" in table(comparison, "flickr")


def test_perplexities_are_of_the_seeds_that_both_have():
    runs = runs_of(only(CLEAR, 0.0, 0.1), unmixed={0.0: 5.0, 0.1: 5.0})
    for run in runs:
        smoothed, seed = run["label_smoothing"] > 0, run["seed"]
        results = run["results"]["test"]
        results["perplexity"] = 5.0 + 0.4 * smoothed + 0.01 * seed * smoothed
        if not smoothed and seed > 3:
            run["seed"] = seed + 10  # of the baseline alone
            results["perplexity"] = 10.0
            results["adjusted"]["unmixed"]["nll_per_token"] = math.log(10.0)
    text = headline(compare(runs))
    # Of seeds 1 to 3: 5.41, 5.42, 5.43; over all five of ε = 0 the mean is 7.00.
    assert "perplexity rises from 5.00 to 5.42; after un-mixing it is 5.00 (5.00 for ε = 0)" in text
    apart = compare(only_numbers({(0.0, 1): 30.0, (0.1, 2): 31.0}))
    assert "perplexity" not in headline(apart)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (number(-1.005, 1), "−1.0"),
        (number(0.5, 2, True), "+0.50"),
        (number(None), "–"),
        (interval([-0.2, 1.0]), "−0.20 … +1.00"),
        (interval(None), "–"),
        (mean_sd({"mean": 31.236, "sd": None}), "31.24"),
        (mean_sd({"mean": 31.236, "sd": 0.149}), "31.24 ± 0.15"),
        (p_value(0.0004), "< 0.001"),
        (p_value(0.0404), "= 0.040"),
        (p_value(0.04996), "= 0.04996"),
        (p_value(0.0496), "= 0.0496"),
        (p_value(0.0504), "= 0.0504"),
        (p_value(0.05), "= 0.050"),
        (p_value(0.0494), "= 0.049"),
        (p_value(None), "–"),
    ],
)
def test_numbers_are_rounded_for_people(text, expected):
    assert text == expected
