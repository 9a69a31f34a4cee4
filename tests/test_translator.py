"""Translation and scoring with untrained parameters: order, batching, ensembles, agreement."""

import dataclasses
import math

import numpy as np
import pytest
from tiny import MODEL, random_params, tiny_config, tiny_data

from nmt_ls.config import DecodingConfig
from nmt_ls.decoding.beam import Hypotheses
from nmt_ls.decoding.mbr import MinimumBayesRisk
from nmt_ls.decoding.rows import in_batches, pad_rows, padded_length
from nmt_ls.decoding.scoring import Adjustment, batched_pairs, score_tokens
from nmt_ls.decoding.translator import Translator, _distinct
from nmt_ls.errors import UserError
from nmt_ls.parallel import DataParallel

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


def test_nobody_else_in_the_file_changes_a_bit(translator):
    """More sentences of all lengths than are searched at a time, so that rows are filled again."""
    random = np.random.default_rng(3)
    lines = [
        " ".join(f"w{random.integers(40):02d}" for _ in range(random.integers(1, 13)))
        for _ in range(60)
    ]
    together = translator.translate(lines)
    assert len({len(one.tokens) for one in together}) > 3
    for i in range(0, 60, 7):
        assert translator.translate([lines[i]]) == [together[i]]
    assert [one.n_best[0] for one in translator.translate(lines[:20], n_best=3)] == together[:20]


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


@pytest.mark.parametrize(
    ("positions", "limit", "kept"), [("learned", 512, 32), ("sinusoidal", 9, 9)]
)
def test_longer_sentences_are_translated_up_to_the_limit_and_counted(
    subwords, positions, limit, kept
):
    model = dataclasses.replace(MODEL, positions=positions)
    params = random_params(model, subwords.source_size, subwords.target_size)
    decoding = dataclasses.replace(DECODING, max_source_length=limit)
    cutting = Translator([model], [params], subwords, decoding)
    words = [f"w{i % 40:02d}" for i in range(10_000)]
    # The end is one of the tokens that are kept.
    wanted = cutting.translate([" ".join(words[: kept - 1])])
    assert cutting.truncated == 0
    assert cutting.translate([" ".join(words), " ".join(words[: kept - 1])])[:1] == wanted
    assert cutting.truncated == 1


def test_learned_positions_may_end_within_the_padding(subwords, caplog):
    """18 tokens are padded to 32; a table of 20 rows says the same of them as one of 32."""
    short, long = (
        dataclasses.replace(MODEL, positions="learned", max_positions=n) for n in (20, 32)
    )
    params = random_params(long, subwords.source_size, subwords.target_size)
    cut = {k: v[:20] if "_positions." in k else v for k, v in params.items()}
    sentence = " ".join(f"w{i:02d}" for i in range(17))
    sources, targets = subwords.encode_source([sentence, "w03"]), subwords.encode_target(["w01"])
    targets += subwords.encode_target([sentence])
    rows = {"batch_sentences": 8}
    whole = score_tokens(long, subwords, params, sources, targets, **rows)
    part = score_tokens(short, subwords, cut, sources, targets, **rows)
    for a, b in zip(whole, part, strict=True):
        np.testing.assert_array_equal(a.nll, b.nll)
    decoding = dataclasses.replace(DECODING, max_length_ratio=0.0, max_length_extra=12)
    found = [
        Translator([m], [p], subwords, decoding).translate([sentence])[0].log_prob
        for m, p in ((long, params), (short, cut))
    ]
    assert found[0] == found[1] > -np.inf
    assert not caplog.messages
    # Beyond the table: a number, and a warning.
    longer = subwords.encode_target([sentence + " w01 w02 w03 w04"])
    (beyond,) = score_tokens(short, subwords, cut, sources[1:], longer, **rows)
    assert np.isfinite(beyond.nll).all()
    assert "1 of 1 pairs have more than model.max_positions=20 tokens" in caplog.text


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


def test_of_long_pairs_and_many_hypotheses_there_are_fewer_at_a_time(translator, subwords):
    whole = DataParallel().whole_rows
    for lengths, rows in (((512, 16), 64), ((16, 1024), 16), ((2100, 1030), 1)):
        ids = [[[5] * n] * 65 for n in lengths]
        found = list(batched_pairs(subwords, *ids, 64))
        assert {len(batch.source) for batch, _, _ in found} == {whole(rows)}
        assert sorted(i for _, chosen, _ in found for i in chosen) == list(range(65))
    for settings, n_best, rows in (
        ({"beam": 16}, 16, 64),
        ({"beam": 100}, 1, 10),
        ({"strategy": "sample"}, 8, 64),
        ({"strategy": "sample"}, 200, 2),
        ({"strategy": "mbr", "samples": 64}, 1, 8),
    ):
        searching = with_decoding(translator, batch_sentences=64, **settings)
        assert searching._rows(n_best) == whole(rows)


def test_rows():
    assert [padded_length(n) for n in (1, 16, 17, 33, 300)] == [16, 16, 32, 64, 512]
    batches = list(in_batches([(3,), (40,), (5,), (20,), (4,)], rows=2))
    assert [shape for _, shape in batches] == [(64,), (32,), (16,), (16,)]
    assert [chosen for chosen, _ in batches] == [[1], [3], [2, 4], [0]]
    fewer = in_batches([(3,), (40,), (5,), (41,), (4,)], rows=lambda shape: 64 // shape[0])
    assert [chosen for chosen, _ in fewer] == [[3], [1], [2, 4, 0]]
    ids, lengths = pad_rows([[5, 6], [7]], 3, 4, pad=0)
    assert ids.tolist() == [[5, 6, 0, 0], [7, 0, 0, 0], [0, 0, 0, 0]]
    assert lengths.tolist() == [2, 1, 0]
    assert math.prod(ids.shape) == 12


# --- strategies and distributions ----------------------------------------------------------------


def with_decoding(translator, masses=None, **fields):
    decoding = dataclasses.replace(DECODING, **fields)
    params = translator._data.params
    return Translator(translator.models, params, translator.subwords, decoding, masses)


def test_token_log_probs_add_up(translator):
    for one in translator.translate(SENTENCES[:1], n_best=3)[0].n_best:
        assert len(one.token_log_probs) == len(one.tokens)
        assert sum(one.token_log_probs) == pytest.approx(one.log_prob, rel=1e-5)


def test_rounding_makes_no_token_more_than_certain(translator):
    far = np.float32([[-120.0, -119.99998, -121.0]])
    found = Hypotheses(
        np.full((1, 1, 3), 5), np.full((1, 1), -40.0), np.full((1, 1), -121.0),
        np.full((1, 1), 3), far[None],
    )  # fmt: skip
    found_probs = translator._translation(found, 0, 1).token_log_probs
    assert found_probs == (-120.0, 0.0, far[0, 2] - far[0, 1])


def test_samples_do_not_depend_on_the_batch_or_the_block(translator):
    drawing = with_decoding(translator, strategy="sample", temperature=0.8)
    together = drawing.translate(SENTENCES, n_best=4)
    alone = drawing.translate(SENTENCES[3:4], n_best=4, first=3)
    assert [t.text for t in together[3].n_best] == [t.text for t in alone[0].n_best]
    assert len({t.text for t in together[3].n_best}) > 1
    other = dataclasses.replace(drawing.decoding, seed=2)
    again = Translator(drawing.models, drawing._data.params, drawing.subwords, other)
    assert again.translate(SENTENCES, n_best=4)[3] != together[3]


def test_mbr_takes_the_sample_that_the_others_resemble(translator):
    choosing = with_decoding(translator, strategy="mbr", samples=8)
    (found,) = choosing.translate(SENTENCES[3:4], n_best=3, first=3)
    drawn = with_decoding(translator, strategy="sample").translate(
        SENTENCES[3:4], n_best=8, first=3
    )
    texts = [t.text for t in drawn[0].n_best]
    chosen = MinimumBayesRisk("chrf").choose(texts)
    assert found.text == texts[chosen.index]
    assert found.score == pytest.approx(float(np.max(chosen.expected)))
    scores = [t.score for t in found.n_best]
    assert scores == sorted(scores, reverse=True)
    assert len({t.text for t in found.n_best}) == len(found.n_best) <= 3


def test_equal_texts_are_there_once_where_they_came_first():
    assert _distinct(["a", "b", "a", "c", "b"], [0, 1, 2, 3, 4]) == [0, 1, 3]
    assert _distinct(["a", "b", "a"], [2, 1, 0]) == [2, 1]


def test_unmixing_changes_the_distribution_that_is_searched(translator, subwords):
    vocab = subwords.target_size
    none = with_decoding(translator, [np.zeros(vocab, np.float32)], unmix="given", unmix_mass=0.1)
    plain = translator.translate(SENTENCES)
    assert [t.text for t in none.translate(SENTENCES)] == [t.text for t in plain]
    mass = np.full(vocab, 0.5 / vocab, np.float32)
    sharper = with_decoding(translator, [mass], unmix="given", unmix_mass=0.5)
    for before, after in zip(plain, sharper.translate(SENTENCES), strict=True):
        if before.tokens and after.tokens == before.tokens:
            assert after.log_prob > before.log_prob
    tempered = with_decoding(translator, temperature=0.5).translate(SENTENCES)
    assert tempered[0].log_prob != plain[0].log_prob


def test_a_prefix_begins_every_translation(translator):
    found = translator.translate(SENTENCES[:1], prefix="w05 w06")
    assert found[0].text.startswith("w05 w06")
    with pytest.raises(UserError, match="a prefix of 30 tokens"):
        translator.translate(SENTENCES[:1], prefix=" ".join(["w05"] * 30))
    with pytest.raises(UserError, match="a prefix with w99 ärger, for which .* have no pieces"):
        translator.translate(SENTENCES[:1], prefix="w05 w99 ärger")
    with pytest.raises(UserError, match="a prefix is for beam search"):
        with_decoding(translator, strategy="sample").translate(SENTENCES[:1], prefix="w05")


def test_shortest_outputs(translator):
    longer = with_decoding(translator, min_length=3, min_length_ratio=0.5)
    for text, one in zip(SENTENCES, longer.translate(SENTENCES), strict=True):
        words = len(text.split())
        if words:
            limit = words + 1 + DECODING.max_length_extra
            assert len(one.tokens) >= min(int(0.5 * words) + 3 + 1, limit)


def test_variety_of_translations(subwords, params):
    wide = dataclasses.replace(DECODING, beam=4)

    def outputs(**settings):
        translator = Translator([MODEL], [params], subwords, dataclasses.replace(wide, **settings))
        return translator.translate(SENTENCES, n_best=4)

    plain, once, varied = outputs(), outputs(no_repeat_ngram=1), outputs(groups=4, diversity=100.0)
    assert any(len(set(t.tokens)) < len(t.tokens) for t in plain)
    assert all(len(set(t.tokens)) == len(t.tokens) for t in once)
    first = [len({n.tokens[0] for n in t.n_best}) for t in varied if t.n_best]
    assert min(first) > 1


def test_unmixing_leaves_what_must_come(translator, subwords, params):
    """Ruled out or not, tokens of a prefix and the end at the limit count as in likelihoods."""
    given, eos = subwords.encode_target(["w05 w06"])[0][:-1], subwords.eos
    prior = np.zeros(subwords.target_size, np.float32)
    prior[[*given, eos]] = 1 / 3
    limit = {"max_length_ratio": 0.01, "max_length_extra": len(given) + 1}
    asked = {"unmix": "given", "unmix_mass": 0.9, **limit}
    reduced = with_decoding(translator, [0.9 * prior], **asked)
    (source,) = subwords.encode_source(SENTENCES[:1])
    (found,) = reduced.translate_ids([source], prefix=given)
    assert found.tokens == (*given, eos)
    (statistics,) = score_tokens(
        MODEL, subwords, params, [source], [found.tokens], adjusted=(prior, Adjustment(delta=0.9))
    )
    assert found.token_log_probs == pytest.approx((-statistics.nll).tolist(), rel=1e-4)
    for strategy in ("sample", "mbr"):
        drawing = with_decoding(translator, [0.9 * prior], **asked, strategy=strategy, samples=3)
        drawn = drawing.translate_ids([source], n_best=3)[0].n_best
        assert all(one.tokens[-1] == eos and math.isfinite(one.log_prob) for one in drawn)
        assert all(np.isfinite(one.token_log_probs).all() for one in drawn)
        assert len(drawn) == 3


@pytest.mark.parametrize(("kept", "settings"), [("end", "min_length"), ("w05", "no_repeat_ngram")])
def test_unmixing_leaves_something_to_go_on_with(kept, settings, translator, subwords):
    """Where all that it leaves may not come next, the rest is as it is in likelihoods."""
    token = subwords.encode_target(["w05"])[0][0 if kept == "w05" else -1]
    mass = np.full(subwords.target_size, 0.9, np.float32)
    mass[token] = 0
    asked = {"unmix": "given", "unmix_mass": 0.9, settings: 1}
    for one in with_decoding(translator, [mass], **asked).translate(SENTENCES[2:4]):
        assert one.tokens[-1] == subwords.eos and len(one.tokens) > 1
        assert math.isfinite(one.log_prob)
        if kept == "w05":
            assert one.tokens[0] == token and len(set(one.tokens)) == len(one.tokens)
