"""sacreBLEU metrics: numbers by hand, references of different counts, and the resampling counts."""

import logging
import math

import numpy as np
import pytest
import sacrebleu

from nmt_ls.evaluation.translation import (
    reference_streams,
    scores_from_statistics,
    sentence_statistics,
    ter_reference_length,
    translation_metrics,
)

HYPOTHESES = ["Ein Mann geht die Straße entlang.", "Zwei Hunde spielen.", ""]
REFERENCES = [
    ["Ein Mann geht die Straße hinunter.", "Ein Mann läuft die Straße entlang."],
    ["Zwei Hunde spielen im Schnee."],
    ["Eine Frau liest."],
]


def test_bleu_by_hand():
    # One sentence of 5 tokens, 4 of them right: precisions 4/5, 3/4, 2/3, 1/2, no brevity penalty.
    metrics = translation_metrics(["a b c d x"], [["a b c d e"]])
    assert metrics["bleu"] == pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25)
    assert metrics["ter"] == pytest.approx(100 / 5)
    assert metrics["length_ratio"] == 1.0
    assert metrics["empty_outputs"] == 0.0


def test_brevity_penalty_and_length_ratio():
    metrics = translation_metrics(["a b c d"], [["a b c d e"]])
    assert metrics["bleu"] == pytest.approx(100 * math.exp(1 - 5 / 4))
    assert metrics["length_ratio"] == pytest.approx(4 / 5)


def test_perfect_and_empty():
    perfect = translation_metrics(["Ein Hund läuft schnell."], [["Ein Hund läuft schnell."]])
    assert (perfect["bleu"], perfect["chrf"], perfect["ter"]) == pytest.approx((100, 100, 0))
    assert perfect["chrf_plus_plus"] == pytest.approx(100)
    empty = translation_metrics(["", " "], [["a b"], ["c"]])
    assert (empty["bleu"], empty["chrf"], empty["empty_outputs"]) == (0, 0, 1.0)


def test_references_of_different_counts():
    assert reference_streams([["a", "b"], ["c"]]) == [["a", "c"], ["b", None]]
    metrics = translation_metrics(HYPOTHESES, REFERENCES)
    assert "nrefs:var" in metrics["bleu_signature"]
    assert metrics["empty_outputs"] == pytest.approx(1 / 3)
    single = translation_metrics(HYPOTHESES, [lines[:1] for lines in REFERENCES])
    assert single["bleu"] < metrics["bleu"]


def test_same_as_sacrebleu_with_its_defaults():
    streams = [[lines[0] for lines in REFERENCES]]
    metrics = translation_metrics(HYPOTHESES, [lines[:1] for lines in REFERENCES])
    assert metrics["bleu"] == sacrebleu.corpus_bleu(HYPOTHESES, streams).score
    assert metrics["chrf"] == sacrebleu.corpus_chrf(HYPOTHESES, streams).score
    assert metrics["ter"] == sacrebleu.corpus_ter(HYPOTHESES, streams).score
    version = f"version:{sacrebleu.__version__}"
    assert metrics["bleu_signature"] == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|{version}"
    assert "nc:6|nw:0" in metrics["chrf_signature"]
    assert "tok:tercom" in metrics["ter_signature"]
    plus = sacrebleu.corpus_chrf(HYPOTHESES, streams, word_order=2).score
    assert metrics["chrf_plus_plus"] == plus != metrics["chrf"]
    assert (
        metrics["chrf_plus_plus_signature"]
        == f"nrefs:1|case:mixed|eff:yes|nc:6|nw:2|space:no|{version}"
    )


def test_chrf_plus_plus_by_hand():
    # "abcd ef" against "abcd gh". Character n-grams over "abcdef" and "abcdgh": 4/6, 3/5, 2/4, 1/3,
    # 0/2, 0/1 match; words 1/2; word bigrams 0/1. Precision = recall, so F2 is their mean.
    orders = [4 / 6, 3 / 5, 2 / 4, 1 / 3, 0, 0]
    metrics = translation_metrics(["abcd ef"], [["abcd gh"]])
    assert metrics["chrf"] == pytest.approx(100 * sum(orders) / 6)
    assert metrics["chrf_plus_plus"] == pytest.approx(100 * sum([*orders, 1 / 2, 0]) / 8)


def test_lowercase_tokenized_bleu_by_hand():
    # Case apart 4 of 5 words match, as in the first test; cased, 2 of 5 and no three in a row.
    hypotheses, references = ["A b C d x"], [["a b c d e"]]
    metrics = translation_metrics(hypotheses, references, lowercase_tokenized=True)
    by_hand = 100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    assert metrics["bleu_lowercase_tokenized"] == pytest.approx(by_hand)
    assert metrics["bleu"] < by_hand
    assert (
        metrics["bleu_lowercase_tokenized_signature"]
        == f"nrefs:1|case:lc|eff:no|tok:none|smooth:exp|version:{sacrebleu.__version__}"
    )
    without = translation_metrics(hypotheses, references)
    assert {key: metrics[key] for key in without} == without
    assert metrics.keys() - without.keys() == {
        "bleu_lowercase_tokenized",
        "bleu_lowercase_tokenized_signature",
    }


def test_lowercase_tokenized_bleu_takes_lines_as_they_stand():
    # 13a parts "e." into two tokens, which the reference has; between white space it is one word.
    metrics = translation_metrics(["a b c d e."], [["a b c d e ."]], lowercase_tokenized=True)
    assert metrics["bleu"] == pytest.approx(100)
    precisions = 4 / 5 * 3 / 4 * 2 / 3 * 1 / 2
    brevity = math.exp(1 - 6 / 5)
    assert metrics["bleu_lowercase_tokenized"] == pytest.approx(100 * brevity * precisions**0.25)


def test_lowercase_tokenized_bleu_of_several_references():
    found = translation_metrics(HYPOTHESES, REFERENCES, lowercase_tokenized=True)
    assert "nrefs:var" in found["bleu_lowercase_tokenized_signature"]


def test_raw_reference_is_not_touched():
    references = [["Ein  Mann\u00a0– „groß“ .  "]]
    translation_metrics(["Ein Mann"], references)
    assert references == [["Ein  Mann\u00a0– „groß“ .  "]]


def test_tokenised_text_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING, logger="sacrebleu"):
        translation_metrics(["Ein Hund ."] * 100, [["Ein Hund."]] * 100)
    assert "detokenize" in caplog.text
    once = len(caplog.records)
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="sacrebleu"):
        translation_metrics(["Ein Hund ."] * 100, [["Ein Hund."]] * 100, lowercase_tokenized=True)
    assert len(caplog.records) == once  # of `bleu`, not of the score that is meant for such text


@pytest.mark.parametrize(
    ("hypotheses", "references", "message"),
    [
        (["a"], [["a"], ["b"]], "1 hypotheses but 2 sentences"),
        ([], [], "no sentences"),
        (["a", "b"], [["a"], []], "sentence 1"),
        (["a"], ["a"], "sentence 0"),
    ],
)
def test_bad_input_is_named(hypotheses, references, message):
    with pytest.raises(ValueError, match=message):
        translation_metrics(hypotheses, references)


@pytest.mark.parametrize("metric", ["bleu", "chrf"])
def test_counts_give_the_corpus_score(metric):
    other = ["Ein Mann läuft.", "Zwei Hunde spielen im Schnee.", "Eine Frau."]
    counts = sentence_statistics([HYPOTHESES, other], REFERENCES, metric)
    assert [array.shape for array in counts] == [(3, {"bleu": 10, "chrf": 18}[metric])] * 2
    for hypotheses, array in zip([HYPOTHESES, other], counts, strict=True):
        score = scores_from_statistics(array.sum(0, keepdims=True), metric)[0]
        assert score == pytest.approx(translation_metrics(hypotheses, REFERENCES)[metric])
    doubled = scores_from_statistics(2 * counts[1].sum(0, keepdims=True), metric)
    assert doubled == pytest.approx(scores_from_statistics(counts[1].sum(0)[None], metric))


def test_counts_of_no_systems():
    assert sentence_statistics([], REFERENCES, "bleu") == []
    with pytest.raises(ValueError, match="1 hypotheses"):
        sentence_statistics([HYPOTHESES, ["a"]], REFERENCES, "bleu")
    assert np.isfinite(sentence_statistics([HYPOTHESES], REFERENCES, "bleu")[0]).all()


def test_ter_of_two_test_sets_follows_from_the_ter_of_each():
    hypotheses = ["a b c", "d e", "x y z w v"]
    references = [["a c b q"], ["d e f", "e d"], ["x y w z"]]
    pairs = zip(hypotheses, references, strict=True)
    alone = [translation_metrics([h], [r])["ter"] for h, r in pairs]
    lengths = [ter_reference_length([r]) for r in references]
    assert lengths == [4.0, 2.5, 4.0]
    together = sum(t * n for t, n in zip(alone, lengths, strict=True)) / sum(lengths)
    assert together == pytest.approx(translation_metrics(hypotheses, references)["ter"])
    [counts] = sentence_statistics([hypotheses], references, "ter")
    assert counts.sum(0)[1] == sum(lengths)
    assert scores_from_statistics(counts.sum(0, keepdims=True), "ter")[0] == pytest.approx(together)
