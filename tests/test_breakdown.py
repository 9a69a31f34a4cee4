"""BLEU by source length and word accuracy by frequency: by hand, at the edges, and as a whole."""

import math
import random

import pytest

from nmt_ls.evaluation.breakdown import (
    FREQUENCIES,
    LENGTHS,
    by_length,
    by_word_frequency,
    word_counts,
)
from nmt_ls.evaluation.translation import translation_metrics


def words(count: int) -> str:
    return " ".join("w" * count)


# --- by length -----------------------------------------------------------------------------------


def test_bleu_by_length_by_hand():
    rows = by_length(
        ["a b c d x", "a b c d", "a b c d e"],
        [["a b c d e"], ["a b c d e"], ["a b c d e"]],
        [words(5), words(7), words(60)],
    )
    assert rows == [
        {
            "low": 1,
            "high": 5,
            "sentences": 1,
            "bleu": pytest.approx(100 * (4 / 5 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25),
            "length_ratio": 1.0,
        },
        {
            "low": 6,
            "high": 10,
            "sentences": 1,
            "bleu": pytest.approx(100 * math.exp(1 - 5 / 4)),
            "length_ratio": pytest.approx(4 / 5),
        },
        {
            "low": 51,
            "high": None,
            "sentences": 1,
            "bleu": pytest.approx(100),
            "length_ratio": 1.0,
        },
    ]


def test_bleu_of_a_bucket_is_over_its_sentences_together():
    # Together 9 of 10 words, 7 of 8 bigrams, 5 of 6 and 3 of 4: no mean of two BLEUs.
    rows = by_length(["a b c d x", "a b c d e"], [["a b c d e"]] * 2, [words(2), words(3)])
    assert [row["sentences"] for row in rows] == [2]
    assert rows[0]["bleu"] == pytest.approx(100 * (9 / 10 * 7 / 8 * 5 / 6 * 3 / 4) ** 0.25)


@pytest.mark.parametrize(
    ("length", "low", "high"),
    [
        *[(0, 0, 0), (1, 1, 5), (5, 1, 5), (6, 6, 10), (10, 6, 10), (11, 11, 15), (15, 11, 15)],
        *[(16, 16, 20), (20, 16, 20), (21, 21, 30), (30, 21, 30), (31, 31, 50), (50, 31, 50)],
        *[(51, 51, None), (500, 51, None)],
    ],
)
def test_edges_of_length(length, low, high):
    (row,) = by_length(["a"], [["a"]], [words(length)])
    assert (row["low"], row["high"], row["sentences"]) == (low, high, 1)


def test_no_sentence_is_left_out():
    draw = random.Random(1)
    sources = [words(draw.randrange(70)) for _ in range(200)]
    lines = [" ".join(draw.choices("abcde", k=8)) for _ in sources]
    references = [[line, line[::-1]][: draw.randint(1, 2)] for line in lines]
    rows = by_length(lines, references, sources)
    assert sum(row["sentences"] for row in rows) == 200
    assert [row["low"] for row in rows] == list(LENGTHS)
    for row in rows:
        assert row["bleu"] == pytest.approx(100)


def test_one_bucket_is_the_whole_test_set():
    hypotheses = ["Ein Mann geht die Straße entlang.", "Zwei Hunde spielen.", ""]
    references = [
        ["Ein Mann geht die Straße hinunter.", "Ein Mann läuft die Straße entlang."],
        ["Zwei Hunde spielen im Schnee."],
        ["Eine Frau liest."],
    ]
    metrics = translation_metrics(hypotheses, references)
    (row,) = by_length(hypotheses, references, ["a \u00a0 b", "  a\tb ", "a"])
    assert (row["bleu"], row["length_ratio"]) == (metrics["bleu"], metrics["length_ratio"])


def test_empty_outputs_and_empty_references_by_length():
    (row,) = by_length(["", ""], [["a b"], ["c"]], ["x", "y"])
    assert (row["bleu"], row["length_ratio"]) == (0.0, 0.0)
    (row,) = by_length(["a"], [[""]], ["x"])
    assert (row["bleu"], row["length_ratio"]) == (0.0, 0.0)
    assert isinstance(row["length_ratio"], float)


def test_tokenised_text_is_not_warned_of_again(caplog):
    by_length(["Ein Hund ."] * 100, [["Ein Hund."]] * 100, ["a dog"] * 100)
    assert not caplog.records


# --- by frequency --------------------------------------------------------------------------------


def test_frequency_by_hand():
    counts = {"the": 1000, ".": 5000, "cat": 3, "sat": 2, "dog": 9}
    rows = by_word_frequency(
        ["the the the cat.", "the dog sat."],
        [["the cat sat on the mat.", "the the the cat."], ["the dog sat."]],
        counts,
    )
    assert rows == [
        # on and mat, which no output has
        {"low": 0, "high": 0, "words": 2, "precision": None, "recall": 0.0, "f1": 0.0},
        # cat, sat, sat against cat, sat
        {"low": 2, "high": 4, "words": 3, "precision": 1.0, "recall": 2 / 3, "f1": 0.8},
        {"low": 5, "high": 9, "words": 1, "precision": 1.0, "recall": 1.0, "f1": 1.0},
        # the ×2 + . and the + . against the ×3 + . and the + .; the third "the" is one too many
        {
            "low": 1000,
            "high": None,
            "words": 5,
            "precision": 5 / 6,
            "recall": 1.0,
            "f1": pytest.approx(10 / 11),
        },
    ]


def test_matches_are_counted_sentence_by_sentence():
    # Each word is in the other sentence's reference.
    (row,) = by_word_frequency(["a", "b"], [["b"], ["a"]], {"a": 1, "b": 1})
    assert row == {"low": 1, "high": 1, "words": 2, "precision": 0.0, "recall": 0.0, "f1": 0.0}


def test_words_that_only_outputs_have():
    rows = by_word_frequency(["seen new"], [["seen"]], {"seen": 20})
    assert rows == [
        {"low": 0, "high": 0, "words": 0, "precision": 0.0, "recall": None, "f1": 0.0},
        {"low": 10, "high": 99, "words": 1, "precision": 1.0, "recall": 1.0, "f1": 1.0},
    ]


@pytest.mark.parametrize(
    ("count", "low", "high"),
    [
        *[(0, 0, 0), (1, 1, 1), (2, 2, 4), (4, 2, 4), (5, 5, 9), (9, 5, 9), (10, 10, 99)],
        *[(99, 10, 99), (100, 100, 999), (999, 100, 999), (1000, 1000, None), (10**9, 1000, None)],
    ],
)
def test_edges_of_frequency(count, low, high):
    (row,) = by_word_frequency(["a"], [["a"]], {"a": count})
    assert (row["low"], row["high"]) == (low, high)
    assert low in FREQUENCIES


def test_counts_are_cased_and_not_changed():
    counts = word_counts(["Haus"])
    (row,) = by_word_frequency(["haus"], [["haus"]], counts)
    assert row["low"] == 0
    assert counts == {"Haus": 1}


def test_nothing_but_empty_lines_has_no_rows():
    assert by_word_frequency(["", " "], [[""], ["  "]], {}) == []


def test_words_are_those_that_bleu_counts():
    lines = ["Ein Hund, zwei Hunde.", "Um 3.50 Uhr (etwa) &quot;ja&quot;.  ", "", "Ein\u00a0Hund"]
    counts = word_counts(iter(lines))
    assert counts["Hund"] == 2 and counts["Ein"] == 2 and counts["3.50"] == 1 and counts['"'] == 2
    assert counts["."] == 2 and "Hunde." not in counts
    rows = by_word_frequency(lines, [[line] for line in lines], counts)
    assert sum(row["words"] for row in rows) == counts.total()
    assert {row["f1"] for row in rows} == {1.0}
    # As many as BLEU counts: against as many single words its length ratio is 1.
    ratio = translation_metrics(lines[:1], [["w " * word_counts(lines[:1]).total()]])
    assert ratio["length_ratio"] == 1.0


def test_counts_of_no_lines():
    assert word_counts([]) == {}


# --- both ----------------------------------------------------------------------------------------


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
        by_length(hypotheses, references, hypotheses)
    with pytest.raises(ValueError, match=message):
        by_word_frequency(hypotheses, references, {})


def test_sources_of_another_number():
    with pytest.raises(ValueError, match="1 hypotheses but 2 sources"):
        by_length(["a"], [["a"]], ["x", "y"])
