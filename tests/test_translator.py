"""Translation and scoring with untrained parameters: order, batching, ensembles, agreement."""

import dataclasses
import math

import numpy as np
import pytest
from tiny import MODEL, random_params, tiny_config, tiny_data

from nmt_ls.config import DecodingConfig
from nmt_ls.decoding.rows import in_batches, pad_rows, padded_length
from nmt_ls.decoding.scoring import score_tokens
from nmt_ls.decoding.translator import Translator
from nmt_ls.errors import UserError

DECODING = DecodingConfig(beam=3, batch_sentences=8, max_length_ratio=1.0, max_length_extra=4)


@pytest.fixture(scope="module")
def subwords(tmp_path_factory):
    return tiny_data(tiny_config(tmp_path_factory.mktemp("tiny"))).subwords


@pytest.fixture(scope="module")
def params(subwords):
    return random_params(MODEL, subwords.source_size, subwords.target_size)


@pytest.fixture(scope="module")
def translator(subwords, params):
    return Translator([MODEL], [params], subwords, DECODING)


SENTENCES = ["w01 w02 w03", "", "w07", "w30 w31 w32 w33 w34 w35", "w01 w02 w03", "   "]


def test_every_line_is_answered_in_order(translator):
    found = translator.translate(SENTENCES)
    assert len(found) == len(SENTENCES)
    assert found[0] == found[4]
    assert found[1].text == found[5].text == ""
    assert all(found[i].text == translator.translate([SENTENCES[i]])[0].text for i in range(6))
    assert translator.translate([]) == []


def test_scores_are_those_of_scoring(translator, subwords, params):
    source_ids = subwords.encode_source(SENTENCES[2:4])
    found = translator.translate_ids(source_ids, n_best=3)
    for ids, translation in zip(source_ids, found, strict=True):
        assert translation.n_best[0].text == translation.text
        scores = [one.score for one in translation.n_best]
        assert scores == sorted(scores, reverse=True)
        for one in translation.n_best:
            (statistics,) = score_tokens(MODEL, subwords, params, [ids], [one.tokens])
            assert one.log_prob == pytest.approx(-float(statistics.nll.sum()), rel=1e-4)
            assert one.score == pytest.approx(one.log_prob / len(one.tokens), rel=1e-5)


def test_more_n_best_than_the_beam_is_refused(translator):
    with pytest.raises(UserError, match="n-best 4 needs decoding.beam"):
        translator.translate(["w01"], n_best=4)


def test_an_ensemble_of_equals_is_the_one(translator, subwords, params):
    both = Translator([MODEL, MODEL], [params, params], subwords, DECODING)
    for one, two in zip(translator.translate(SENTENCES), both.translate(SENTENCES), strict=True):
        assert one.tokens == two.tokens
        assert one.log_prob == pytest.approx(two.log_prob, rel=1e-5)


def test_an_ensemble_averages_probabilities(subwords, params):
    """Greedy ensemble of two models: its first token's probability is the mean of theirs."""
    other = random_params(MODEL, subwords.source_size, subwords.target_size, seed=1)
    greedy = dataclasses.replace(DECODING, beam=1, length_penalty="none")
    (source,) = subwords.encode_source(["w05 w06"])
    both = Translator([MODEL, MODEL], [params, other], subwords, greedy)
    (found,) = both.translate_ids([source])
    nll = [
        score_tokens(MODEL, subwords, p, [source], [found.tokens])[0].nll for p in (params, other)
    ]
    mean = np.log((np.exp(-nll[0].astype(float)) + np.exp(-nll[1].astype(float))) / 2)
    assert found.log_prob == pytest.approx(mean.sum(), rel=1e-4)


def test_long_sentences_are_neither_dropped_nor_cut(translator, subwords, params):
    long = " ".join(["w01"] * 300)
    assert translator.translate([long, "w02"])[1] == translator.translate(["w02"])[0]
    (ids,) = subwords.encode_target([long])
    (statistics,) = score_tokens(MODEL, subwords, params, subwords.encode_source(["w02"]), [ids])
    assert len(statistics.nll) == 301


def test_learned_positions_refuse_what_they_cannot_hold(subwords):
    model = dataclasses.replace(MODEL, positions="learned")
    params = random_params(model, subwords.source_size, subwords.target_size)
    short = Translator([model], [params], subwords, DECODING)
    with pytest.raises(UserError, match="max_positions=32"):
        short.translate([" ".join(["w01"] * 40)])


def test_scoring_does_not_depend_on_batching(subwords, params):
    sources = subwords.encode_source(SENTENCES)
    targets = subwords.encode_target(["w09", "w01 w02", "", "w03", "w04 w05 w06", "w07"])
    together = score_tokens(MODEL, subwords, params, sources, targets, batch_sentences=8)
    for i, statistics in enumerate(together):
        alone = score_tokens(
            MODEL, subwords, params, sources[i : i + 1], targets[i : i + 1], batch_sentences=8
        )
        np.testing.assert_allclose(statistics.nll, alone[0].nll, rtol=1e-6)
        assert len(statistics.nll) == len(targets[i])


def test_rows():
    assert [padded_length(n) for n in (1, 16, 17, 33, 300)] == [16, 16, 32, 64, 512]
    batches = list(in_batches([(3,), (40,), (5,), (20,), (4,)], rows=2))
    assert [shape for _, shape in batches] == [(64,), (32,), (16,), (16,)]
    assert [chosen for chosen, _ in batches] == [[1], [3], [2, 4], [0]]
    ids, lengths = pad_rows([[5, 6], [7]], 3, 4, pad=0)
    assert ids.tolist() == [[5, 6, 0, 0], [7, 0, 0, 0], [0, 0, 0, 0]]
    assert lengths.tolist() == [2, 1, 0]
    assert math.prod(ids.shape) == 12
