"""Calibration of decoded tokens: TER's labels by hand and against sacreBLEU, pieces to words."""

import io
import math

import numpy as np
import pytest
import sentencepiece
from hypothesis import given, settings
from hypothesis import strategies as st
from sacrebleu.metrics import TER, lib_ter

from nmt_ls.evaluation.calibration import calibration, calibration_intervals
from nmt_ls.evaluation.inference_calibration import (
    _align,
    _Word,
    inference_calibration,
    inference_labels,
    labelled_tokens,
    marked_pieces,
    words_of_pieces,
)

sentences = st.lists(st.sampled_from("abcdef"), max_size=14)


def labels_of(hypothesis: str, reference: str) -> str:
    """The labels as a string: + right, - wrong, ? unknown."""
    found = inference_labels(hypothesis.split(), reference.split())
    return "".join({True: "+", False: "-", None: "?"}[label] for label in found)


@pytest.mark.parametrize(
    ("hypothesis", "reference", "labels"),
    [
        ("a b c d", "a b c d", "++++"),
        ("a b x d", "a b c d", "++-+"),  # a substitution
        ("a b x c d", "a b c d", "++-++"),  # an insertion
        ("a b d", "a b c d", "+++"),  # a missing word makes no other wrong
        ("b c d", "a b c d", "+++"),
        ("d a b c", "a b c d", "++++"),  # a shift leaves the word right
        ("c d e a b", "a b c d e", "+++++"),  # a block of two, or of three
        ("x d a b c", "a b c d", "-++++"),  # the label goes with the word, not with its new place
        ("d a b x", "a b c d", "+++-"),
        ("x y z", "a b c d", "---"),
        ("Hund .", "hund .", "-+"),  # case counts
        ("a", "", "?"),
        ("", "a b", ""),
        ("", "", ""),
    ],
)
def test_labels_by_hand(hypothesis, reference, labels):
    assert labels_of(hypothesis, reference) == labels


def test_of_equal_words_as_many_are_right_as_the_reference_has():
    # Which of them is TER's choice.
    assert sorted(labels_of("a a a", "a")) == sorted("+--")
    assert sorted(labels_of("the the cat", "the cat")) == sorted("++-")


def test_what_is_no_word_has_no_label_and_does_not_move_the_others():
    assert inference_labels(["", "a", " ", "x", "b"], ["a", "", "b"]) == [
        None,
        True,
        None,
        False,
        True,
    ]
    assert inference_labels(["a"], [" "]) == [None]


def test_a_string_is_no_list_of_tokens():
    with pytest.raises(ValueError, match="list of tokens"):
        inference_labels("a b", ["a", "b"])
    with pytest.raises(ValueError, match="list of tokens"):
        inference_labels(["a", "b"], "a b")


def aligned(hypothesis: list[str], reference: list[str]):
    words = [_Word(word) for word in hypothesis]
    for place, word in enumerate(words):
        word.place = place
    return _align(words, reference)


@settings(max_examples=200, deadline=None)
@given(sentences, sentences.filter(bool))
def test_the_alignment_is_the_one_of_sacrebleus_ter(hypothesis, reference):
    words, trace, shifts = aligned(hypothesis, reference)
    assert sorted(word.place for word in words) == list(range(len(hypothesis)))
    assert all(word == hypothesis[word.place] for word in words)
    edits = shifts + sum(edit != " " for edit in trace)
    assert (edits, len(reference)) == lib_ter.translation_edit_rate(hypothesis, reference)
    score = TER(case_sensitive=True).sentence_score(" ".join(hypothesis), [" ".join(reference)])
    assert score.score == pytest.approx(100 * edits / len(reference))


def test_long_sentences_where_ter_gives_up_looking_for_shifts(monkeypatch):
    random = np.random.default_rng(0)
    reference = [str(word) for word in random.integers(12, size=40)]
    hypothesis = [str(word) for word in random.permutation(reference)]
    monkeypatch.setattr(lib_ter, "_MAX_SHIFT_CANDIDATES", 100)
    words, trace, shifts = aligned(hypothesis, reference)
    edits = shifts + sum(edit != " " for edit in trace)
    assert edits == lib_ter.translation_edit_rate(hypothesis, reference)[0]
    assert sorted(word.place for word in words) == list(range(40))
    monkeypatch.undo()
    assert lib_ter.translation_edit_rate(hypothesis, reference)[0] < edits  # it did give up


@settings(max_examples=150, deadline=None)
@given(sentences, sentences.filter(bool))
def test_properties_of_labels(hypothesis, reference):
    labels = inference_labels(hypothesis, reference)
    assert len(labels) == len(hypothesis)
    assert None not in labels
    right = [word for word, label in zip(hypothesis, labels, strict=True) if label]
    for word in set(hypothesis):
        assert right.count(word) <= min(hypothesis.count(word), reference.count(word))
    assert all(inference_labels(reference, reference))


def test_inference_calibration_by_hand():
    log_probs = [np.log([0.9, 0.5, 0.2]), np.log([0.9])]
    result = inference_calibration(log_probs, [[True, False, None], [True]])
    assert result["tokens"] == 3
    assert result["labelled_share"] == 0.75
    assert result["ece"] == pytest.approx((0.1 + 0.5 + 0.1) / 3)
    assert result["accuracy"] == pytest.approx(2 / 3)
    assert result["gap"] == pytest.approx((0.9 + 0.5 + 0.9) / 3 - 2 / 3)
    assert len(result["reliability"]) == 20
    assert result["reliability"][9]["count"] == 1  # (0.45, 0.5]


def test_inference_calibration_is_calibration_of_the_labelled_tokens():
    random = np.random.default_rng(0)
    log_probs = [np.log(random.uniform(0.01, 1, size)) for size in (5, 0, 9, 30)]
    labels = [random.choice([True, False, None], len(row)).tolist() for row in log_probs]
    confidence, correct, sentence = labelled_tokens(log_probs, labels)
    assert confidence.shape == correct.shape == sentence.shape
    assert set(sentence.tolist()) == {0, 2, 3}
    found = inference_calibration(log_probs, labels)
    assert found.items() >= calibration(confidence, correct, bins=20).items()
    low, high = calibration_intervals(confidence, correct, sentence, bins=20)["gap_ci95"]
    assert low <= found["gap"] <= high


def test_nothing_labelled_is_none_not_zero():
    empty = inference_calibration([], [])
    assert (empty["ece"], empty["tokens"], empty["labelled_share"]) == (None, 0, None)
    unknown = inference_calibration([[-0.1, -math.inf], []], [[None, None], []])
    assert (unknown["ece"], unknown["tokens"], unknown["labelled_share"]) == (None, 0, 0.0)
    impossible = inference_calibration([[-math.inf]], [[False]])
    assert (impossible["ece"], impossible["mean_confidence"]) == (0.0, 0.0)


@pytest.mark.parametrize(
    ("log_probs", "labels"),
    [
        ([[-0.1]], []),
        ([[-0.1]], [[True, False]]),
        ([[[-0.1]]], [[True]]),
        ([[0.5]], [[True]]),
        ([[math.nan]], [[True]]),
    ],
)
def test_bad_input_is_refused(log_probs, labels):
    with pytest.raises(ValueError, match="."):
        inference_calibration(log_probs, labels)


@pytest.mark.parametrize(
    ("pieces", "words", "members"),
    [
        (["▁ein", "▁Hund", "</s>"], ["ein", "Hund"], [[0], [1]]),
        (["▁Hu", "nd", "▁lä", "uf", "t", "</s>"], ["Hund", "läuft"], [[0, 1], [2, 3, 4]]),
        (["Hu", "nd"], ["Hund"], [[0, 1]]),  # the first begins a word in any case
        (["▁", "ein", "▁", "▁Hund", "▁"], ["ein", "Hund"], [[0, 1], [2, 3]]),
        (["<s>", "▁a", "<pad>", "b", "<extra>"], ["ab"], [[1, 3]]),
        (["▁a", "<unk>", "b"], ["a", "⁇", "b"], [[0], [1], [2]]),
        (["▁", "<unk>", "<unk>", "▁b"], ["⁇", "⁇", "b"], [[0, 1], [2], [3]]),
        (["▁Stra", "<0xC3>", "<0x9F>", "e"], ["Straße"], [[0, 1, 2, 3]]),
        (["▁a", "<0xC3>", "▁b"], ["a�", "b"], [[0, 1], [2]]),
        (["▁▁a"], ["a"], [[0]]),
        (["▁"], [], []),
        (["</s>"], [], []),
        ([], [], []),
    ],
)
def test_words_of_pieces_by_hand(pieces, words, members):
    log_probs = -np.arange(1.0, len(pieces) + 1)
    found, sums = words_of_pieces(pieces, log_probs)
    assert found == words
    assert sums.dtype == np.float64
    assert sums.tolist() == [sum(log_probs[index] for index in group) for group in members]


def test_pieces_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="2 pieces"):
        words_of_pieces(["▁a", "b"], [-1.0])
    with pytest.raises(ValueError, match="no part of a single word"):
        words_of_pieces(["▁New▁York"], [-1.0])


def test_other_control_pieces():
    assert words_of_pieces(["▁a", "[END]"], [-1.0, -2.0], control=["[END]"])[0] == ["a"]


def test_words_are_those_of_the_decoded_text():
    lines = ["the cat sat on the mat", "ein Hund läuft über die Straße", "a dog runs, fast!"]
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines * 20), model_writer=model, vocab_size=300, byte_fallback=True,
        hard_vocab_limit=False, minloglevel=2, num_threads=1, pad_id=0, unk_id=1, bos_id=2,
        eos_id=3,
    )  # fmt: skip
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    # Any sequence of pieces that a model could write, without bytes (most make no text).
    ids = [i for i in range(processor.get_piece_size()) if not processor.is_byte(i)]
    random = np.random.default_rng(0)
    for _ in range(300):
        drawn = random.choice(ids, random.integers(0, 15)).tolist()
        log_probs = -random.exponential(size=len(drawn))
        words, sums = words_of_pieces([processor.id_to_piece(i) for i in drawn], log_probs)
        assert words == processor.decode(drawn).split()
        assert len(sums) == len(words)
        assert sums.sum() >= log_probs.sum() - 1e-9
    text = "the cat läuft über 猫 çat"
    pieces = processor.encode(text, out_type=str)
    words, sums = words_of_pieces(pieces, np.full(len(pieces), -0.5))
    assert words == text.split()
    assert sums.sum() == pytest.approx(-0.5 * len(pieces))


def test_pieces_of_text_that_was_segmented_before():
    marked = marked_pieces(["Haus@@", "tür", "ist", "<unk>", "au@@", "f@@", "</s>"], "@@")
    assert marked == ["▁Haus", "tür", "▁ist", "<unk>", "▁au", "f", "</s>"]
    words, sums = words_of_pieces(marked, [-1.0, -2.0, -0.5, -3.0, -1.0, -0.25, -9.0])
    assert words == ["Haustür", "ist", "⁇", "auf"]
    assert sums.tolist() == [-3.0, -0.5, -3.0, -1.25]
