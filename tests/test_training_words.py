"""Word counts of the training targets: as they stand, once, and not at any price."""

import dataclasses
import logging
from types import SimpleNamespace

import pytest

from nmt_ls.config import Config, CorpusConfig, DataConfig, EvaluationConfig
from nmt_ls.evaluation import training_words
from nmt_ls.evaluation.training_words import training_word_counts


def run_on(tmp_path, targets: list[str], **data):
    """What is needed of a run whose training targets are these."""
    (tmp_path / "train.en").write_text("a b c\n" * len(targets))
    (tmp_path / "train.de").write_text("".join(f"{line}\n" for line in targets))
    corpus = CorpusConfig(source="train.en", target="train.de")
    given = DataConfig(root=str(tmp_path), train=corpus, cache_dir=str(tmp_path / "cache"), **data)
    subwords = SimpleNamespace(undo=lambda text: text.replace("@@ ", ""))
    return SimpleNamespace(config=Config(data=given), subwords=subwords)


def test_words_by_hand_and_only_once(tmp_path, monkeypatch):
    run = run_on(tmp_path, ["Der Hund, der bellt.", "", "der Hund"])
    expected = {"Der": 1, "Hund": 2, ",": 1, "der": 2, "bellt": 1, ".": 1}
    assert training_word_counts(run) == expected
    monkeypatch.setattr(training_words, "word_counts", lambda lines: pytest.fail("counted again"))
    assert training_word_counts(run) == expected
    monkeypatch.undo()
    assert training_word_counts(run_on(tmp_path, ["neu"])) == {"neu": 1}


def test_marks_of_segmentation_are_no_words(tmp_path):
    run = run_on(tmp_path, ["Hun@@ de bel@@ len"], pretokenized=True)
    assert training_word_counts(run) == {"Hunde": 1, "bellen": 1}


def test_no_counts_without_the_text(tmp_path, caplog):
    run = run_on(tmp_path, ["eins"])
    (tmp_path / "train.de").unlink()
    with caplog.at_level(logging.INFO, "nmt_ls"):
        assert training_word_counts(run) is None
    (line,) = caplog.messages
    assert line.startswith("no quality by word frequency: ") and "train.de" in line


def test_no_counts_where_they_are_not_wanted(tmp_path, caplog):
    run = run_on(tmp_path, ["eins"])
    off = EvaluationConfig(word_frequency=False)
    run.config = dataclasses.replace(run.config, evaluation=off)
    assert training_word_counts(run) is None
    data = dataclasses.replace(run.config.data, train=CorpusConfig(kind="none"))
    run.config = Config(data=data)
    assert training_word_counts(run) is None
    assert caplog.messages == []
