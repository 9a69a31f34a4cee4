"""Stored results that are taken as they are, and those that are measured again."""

import dataclasses
import json

import pytest

from nmt_ls.config import Config, CorpusConfig, DataConfig, DecodingConfig, EvaluationConfig
from nmt_ls.evaluation.completeness import is_complete, other_decoding

BARE = EvaluationConfig(fit=False, empty=False, word_frequency=False)
TEXT = CorpusConfig(source="a", target="b")


def config_of(**asked) -> Config:
    data = DataConfig(train=TEXT, validation=TEXT, tests={"test": TEXT})
    return Config(data=data, evaluation=dataclasses.replace(BARE, **asked))


def results_of(**more) -> dict:
    decode = json.loads(json.dumps(dataclasses.asdict(DecodingConfig())))
    return {"decode": decode, "fingerprint": "now", "bleu": 30.0, **more}


ASKED = [
    ({"fit": True}, {"adjusted": {"both": {}}}),
    ({"empty": True}, {"empty_better": None}),
    ({"word_frequency": True}, {"by_word_frequency": None}),
    ({"projection": True}, {"projection": None}),
    ({"lowercase_tokenized": True}, {"bleu_lowercase_tokenized": 31.0}),
    ({"beams": (1, 5)}, {"beam_curve": [{"beam": 1}, {"beam": 5}]}),
    ({"strategies": ("mbr",)}, {"strategies": {"mbr": {}}}),
    ({"training_pairs": 100}, {"training": {"pairs": 100, "sentences": 97}}),
    ({"training_pairs": 100}, {"training": {"sentences": 100}}),
    ({"comet": "models/a.ckpt"}, {"comet": 0.8, "comet_model": "a.ckpt"}),
]


@pytest.mark.parametrize(("asked", "held"), ASKED, ids=lambda value: "-".join(value))
def test_what_is_asked_for_must_be_there_and_what_is_not_may_be(asked, held):
    assert not is_complete(results_of(), config_of(**asked), "now")
    assert is_complete(results_of(**held), config_of(**asked), "now")
    assert is_complete(results_of(**held), config_of(), "now")


@pytest.mark.parametrize(
    ("asked", "held"),
    [
        ({"beams": (1, 5)}, {"beam_curve": [{"beam": 1}, {"beam": 50}]}),
        ({"strategies": ("mbr", "sample")}, {"strategies": {"mbr": {}}}),
        ({"training_pairs": 100}, {"training": {"pairs": 50, "sentences": 50}}),
        ({"comet": "models/b.ckpt"}, {"comet": 0.8, "comet_model": "a.ckpt"}),
    ],
    ids=lambda value: "-".join(value),
)
def test_a_part_of_what_is_asked_for_is_not_enough(asked, held):
    assert not is_complete(results_of(**held), config_of(**asked), "now")


def test_other_text_another_search_or_nothing_is_measured_again():
    assert is_complete(results_of(), config_of(), "now")
    assert not is_complete(results_of(), config_of(), "then")
    assert not is_complete({}, config_of(), "now")
    beam = dataclasses.replace(config_of(), decoding=DecodingConfig(beam=1))
    assert not is_complete(results_of(), beam, "now")


@pytest.mark.parametrize(
    ("asked", "decoding", "other"),
    [
        ({}, {"batch_sentences": 1, "seed": 2, "samples": 3}, []),
        ({}, {"seed": 2, "length_alpha": 0.6, "beam": 1}, ["beam", "length_alpha"]),
        ({"strategies": ("mbr",)}, {"batch_sentences": 1, "seed": 2}, ["seed"]),
        ({}, {"strategy": "sample", "seed": 2}, ["strategy", "seed"]),
    ],
    ids=["memory", "search", "draws", "strategy"],
)
def test_what_decides_nothing_is_no_other_decoding(asked, decoding, other):
    config = dataclasses.replace(config_of(**asked), decoding=DecodingConfig(**decoding))
    held = results_of(strategies={"mbr": {}})
    assert other_decoding(held, config) == other
    assert is_complete(held, config, "now") is not bool(other)


def test_a_setting_that_there_was_not_yet_had_its_default():
    held = results_of()
    del held["decode"]["groups"], held["decode"]["beam"]
    assert is_complete(held, config_of(), "now")
    beam = dataclasses.replace(config_of(), decoding=DecodingConfig(beam=1))
    assert other_decoding(held, beam) == ["beam"]


def test_nothing_is_fitted_without_validation_text():
    config = config_of(fit=True)
    without = dataclasses.replace(config, data=dataclasses.replace(config.data, validation=None))
    assert not is_complete(results_of(), config, "now")
    assert is_complete(results_of(), without, "now")


def test_what_was_fitted_on_other_text_is_fitted_again():
    held = results_of(adjusted={"both": {}}, fitted_on="then")
    assert is_complete(held, config_of(fit=True), "now", "then")
    assert not is_complete(held, config_of(fit=True), "now", "other")
    assert is_complete(held, config_of(), "now", "other")
    del held["fitted_on"]  # measured by a version that did not store it
    assert is_complete(held, config_of(fit=True), "now", "other")
