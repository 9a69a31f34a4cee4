"""Numbers of several test sets as one: what measuring them together would have given."""

import math

import numpy as np
import pytest

from nmt_ls.evaluation.breakdown import by_word_frequency
from nmt_ls.evaluation.calibration import calibration
from nmt_ls.evaluation.risk_coverage import risk_coverage
from nmt_ls.evaluation.translation import scores_from_statistics, translation_metrics
from nmt_ls.study.measures import MEASURES, counts_of, measured, pool, reference_length

HYPOTHESES = [
    ["Ein Mann geht im Park.", "Zwei Hunde spielen im Schnee mit einem Ball."],
    ["", "Eine Frau liest ein Buch im Garten.", "Kinder laufen."],
]
FREQUENCIES = {"Ein": 50, "im": 30, ".": 99, "Hunde": 3, "liest": 9, "Garten": 10}
REFERENCES = [
    [["Ein Mann läuft im Park."], ["Zwei Hunde spielen im Schnee.", "Hunde im Schnee."]],
    [["Nein."], ["Eine Frau liest im Garten ein Buch."], ["Die Kinder laufen weg."]],
]

CONFIDENCES = [[-0.5, -0.2], [-math.inf, -0.3, -0.1]]


def sentence_chrf(hypotheses: list[str], references: list[list[str]]) -> np.ndarray:
    return scores_from_statistics(counts_of([hypotheses], references)[0]["chrf"], "chrf")


def measured_on(index: int, tokens: slice) -> dict:
    """Results of one test set, or (both) of the two together, from made-up tokens."""
    random = np.random.default_rng(7)
    nll, entropy = random.exponential(1.5, 50)[tokens], random.uniform(0, 3, 50)[tokens]
    confidence, correct = random.uniform(size=50)[tokens], random.uniform(size=50)[tokens] < 0.6
    inference = random.uniform(size=50)[tokens], random.uniform(size=50)[tokens] < 0.5
    both = index < 0
    hypotheses = HYPOTHESES[0] + HYPOTHESES[1] if both else HYPOTHESES[index]
    references = REFERENCES[0] + REFERENCES[1] if both else REFERENCES[index]
    characters = sum(len(lines[0]) for lines in references)
    return {
        **translation_metrics(hypotheses, references),
        **calibration(confidence, correct),
        "nll_total": nll.sum(),
        "nll_per_token": nll.mean(),
        "perplexity": math.exp(nll.mean()),
        "nll_per_character": nll.sum() / characters,
        "entropy": entropy.mean(),
        "tokens": len(nll),
        "sentences": len(hypotheses),
        "adjusted": {
            kind: {"nll_per_token": (factor * nll).mean()}
            for kind, factor in (("temperature", 0.9), ("unmixed", 0.8), ("both", 0.7))
        },
        "inference_calibration": calibration(*inference, bins=20),
        "training": {"nll_per_token": 0.25},
        "by_word_frequency": by_word_frequency(hypotheses, references, FREQUENCIES),
        "risk_coverage": risk_coverage(
            np.concatenate(CONFIDENCES) if both else np.array(CONFIDENCES[index]),
            1 - sentence_chrf(hypotheses, references) / 100,
        ),
    }


@pytest.fixture(scope="module")
def parts() -> tuple:
    results = [measured_on(0, slice(0, 20)), measured_on(1, slice(20, 50))]
    counts = [counts_of([h], r)[0] for h, r in zip(HYPOTHESES, REFERENCES, strict=True)]
    return results, counts, [reference_length(r) for r in REFERENCES], CONFIDENCES


def test_pooled_is_what_both_sets_measured_together_are(parts):
    pooled, expected = pool(*parts), measured_on(-1, slice(0, 50))
    for measure in MEASURES:
        if measure == "scatter":  # of hidden states, which results do not hold
            continue
        value = measured(pooled, measure)
        assert value == pytest.approx(measured(expected, measure), rel=1e-12), measure
    assert (pooled["sentences"], pooled["tokens"]) == (5, 50)
    counts = [row["count"] for row in pooled["reliability"]]
    assert counts == [row["count"] for row in expected["reliability"]]
    assert measured(pooled, "scatter") is None
    # A mean of means is another number.
    means = [results["perplexity"] for results in parts[0]]
    assert measured(pooled, "perplexity") != pytest.approx(sum(means) / 2, rel=1e-3)


def test_words_that_training_saw_seldom_and_the_gap_by_hand(parts):
    results = parts[0][0]
    # Rare in the first set's references: Mann läuft Park, Zwei Hunde spielen Schnee; of
    # them the outputs lack läuft. Frequent: Ein im . and im .
    assert measured(results, "recall_rare") == pytest.approx(6 / 7)
    assert measured(results, "recall_frequent") == pytest.approx(5 / 5)
    assert measured(results, "nll_gap") == pytest.approx(results["nll_per_token"] - 0.25)
    assert measured({"projection": {"hidden": {"ratio": 0.5}}}, "scatter") == 0.5
    assert measured({}, "nll_gap") is measured({}, "recall_rare") is None


def test_the_aurc_ranks_the_sentences_of_all_sets_anew(parts):
    results, counts, lengths, _ = parts
    surer = [[-0.01, -0.02], [-3.0, -2.0, -1.0]]  # of the first set, without an order in it changed
    found = [measured(pool(results, counts, lengths, c), "aurc") for c in (CONFIDENCES, surer)]
    risk = 1 - np.concatenate([sentence_chrf(h, r) for h, r in
                               zip(HYPOTHESES, REFERENCES, strict=True)]) / 100  # fmt: skip
    for confidence, aurc in zip((CONFIDENCES, surer), found, strict=True):
        kept = [risk[i] for i in np.argsort(-np.concatenate(confidence))]
        assert aurc == pytest.approx(np.mean([np.mean(kept[: k + 1]) for k in range(5)]))
    assert found[0] != pytest.approx(found[1], rel=1e-3)
    for unknown in ((), [CONFIDENCES[0], None]):
        assert measured(pool(results, counts, lengths, unknown), "aurc") is None


def test_one_set_alone_keeps_its_results(parts):
    results, counts, lengths, _ = parts
    assert pool(results[:1], counts[:1], lengths[:1]) == results[0]


def test_what_one_set_lacks_is_none(parts):
    (first, second), counts, lengths, _ = parts
    without = {k: v for k, v in second.items() if k not in ("adjusted", "reliability", "entropy")}
    pooled = pool([first, without], [counts[0], None], [lengths[0], None])
    missing = ("bleu", "chrf", "ter", "length_ratio", "ece", "entropy", "nll_unmixed")
    assert [measured(pooled, measure) for measure in missing] == [None] * len(missing)
    assert pooled["reliability"] == []
    together = measured_on(-1, slice(0, 50))
    assert measured(pooled, "perplexity") == pytest.approx(together["perplexity"])
    unknown = {**first, "nll_per_character": None}
    assert measured(pool([unknown, second], counts, lengths), "nll_per_character") is None


def test_nothing_at_all_is_all_none():
    pooled = pool([{"bleu": 30.0}, {"bleu": 31.0}], [None, None], [None, None])
    assert all(measured(pooled, measure) is None for measure in MEASURES)


def test_nll_without_its_sum_and_a_diverged_model():
    sets = [{"nll_per_token": 1.0, "tokens": 10}, {"nll_per_token": 4.0, "tokens": 20}]
    assert measured(pool(sets, [None] * 2, [None] * 2), "nll_per_token") == pytest.approx(3.0)
    sets[0]["nll_per_token"] = 5000.0
    assert measured(pool(sets, [None] * 2, [None] * 2), "perplexity") == math.inf


def test_older_results_have_no_gap_of_their_own():
    assert measured({"mean_confidence": 0.7, "accuracy": 0.6}, "gap") == pytest.approx(0.1)
    assert measured({"mean_confidence": 0.7}, "gap") is None
    assert measured({"adjusted": None}, "nll_both") is None


def test_a_perplexity_that_no_float_holds_is_infinite_and_not_unmeasured():
    assert measured({"perplexity": None, "nll_per_token": 800.0}, "perplexity") == math.inf
    assert measured({"perplexity": None, "nll_per_token": None}, "perplexity") is None
    assert measured({"perplexity": None}, "perplexity") is None
