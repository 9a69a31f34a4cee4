"""The plane through three output rows, hidden states on it, and spread by hand."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from tiny import MODEL, random_params, tiny_config, tiny_data

from nmt_ls.config import CorpusConfig, DecodingConfig
from nmt_ls.decoding.scoring import hidden_states, score_tokens
from nmt_ls.errors import UserError
from nmt_ls.evaluation.evaluate import test_sets as sets_of
from nmt_ls.evaluation.projection import _Vocabulary, projection, scatter
from nmt_ls.training.runs import LoadedRun


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("projection")
    config = tiny_config(folder)
    tests = {"train": CorpusConfig(source="train.en", target="train.de")}
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, tests=tests),
        decoding=DecodingConfig(batch_sentences=128),
    )
    subwords = tiny_data(config).subwords
    params = random_params(MODEL, subwords.source_size, subwords.target_size)
    return LoadedRun(folder, config, subwords, params, "7")


@pytest.fixture(scope="module")
def data(run):
    (found,) = sets_of(run)
    return found


def output_rows(run):
    """The tied output matrix, as the parameters have it."""
    return run.params["target_embedding.table"].astype(np.float64)


def test_hidden_states_are_those_that_the_likelihood_comes_from(run, data):
    args = (run.config.model, run.subwords, run.params, data.source_ids, data.target_ids)
    hidden = hidden_states(*args, batch_sentences=128)
    found = score_tokens(*args, batch_sentences=128)
    for x, ids, statistics in zip(hidden, data.target_ids, found, strict=True):
        logits = x @ run.params["target_embedding.table"].T
        log_z = np.log(np.sum(np.exp(logits.astype(np.float64)), axis=1))
        nll = log_z - logits[np.arange(len(ids)), ids]
        np.testing.assert_allclose(nll, statistics.nll, rtol=1e-4, atol=1e-5)


def test_scatter_by_hand():
    # Means (1, 0) and (5, 0), of all (3, 0); each point is 1 from its own.
    classes = [np.array([[0.0, 0.0], [2.0, 0.0]]), np.array([[5.0, 1.0], [5.0, -1.0]])]
    assert scatter(classes) == {"within": 1.0, "between": 4.0, "ratio": 0.25}
    assert scatter([classes[0], classes[0]])["ratio"] is None


def test_within_and_between_make_up_the_whole_variance():
    random = np.random.default_rng(0)
    classes = [random.normal(size=(n, 5)) + n for n in (3, 4, 9)]
    found = scatter(classes)
    total = np.var(np.concatenate(classes), axis=0).sum()
    assert found["within"] + found["between"] == pytest.approx(total)


def test_frequent_words_on_the_plane_through_their_rows(run, data):
    found = projection(run, data)
    words = [word for row in data.references for word in row[0].split()]
    counts = {word: words.count(word) for word in set(words)}
    assert found["tokens"] == sorted(counts.values(), reverse=True)[:3]
    assert found["tokens"] == [counts[word] for word in found["words"]]
    assert [len(found["points"][word]) for word in found["words"]] == found["tokens"]
    # Distances between the three rows survive the projection: they lie on the plane.
    ids = [run.subwords.encode_target([word])[0][0] for word in found["words"]]
    rows = output_rows(run)[ids]
    flat = np.array([found["templates"][word] for word in found["words"]])
    for i, j in ((0, 1), (0, 2), (1, 2)):
        expected = np.linalg.norm(rows[i] - rows[j])
        assert np.linalg.norm(flat[i] - flat[j]) == pytest.approx(expected, abs=2e-4)
    assert flat[0][1] == flat[1][1] < flat[2][1] and flat[0][0] < flat[1][0]
    np.testing.assert_allclose(flat.sum(axis=0), 0, atol=2e-4)


def test_points_are_least_squares_coordinates_of_the_states(run, data):
    """Another way to the same plane: the shortest way from a state to it."""
    words = ["w01", "w02", "w03"]
    found = projection(run, data, words)
    assert found["words"] == words
    hidden = hidden_states(
        run.config.model, run.subwords, run.params, data.source_ids, data.target_ids,
        batch_sentences=128,
    )  # fmt: skip
    ids = [run.subwords.encode_target([word])[0][0] for word in words]
    rows = output_rows(run)[ids]
    edges = (rows[1:] - rows[0]).T  # [D, 2]
    corners = np.array([found["templates"][word] for word in words])
    for word, index in zip(words, ids, strict=True):
        states = np.concatenate(
            [x[t == index] for x, t in zip(hidden, data.target_ids, strict=True)]
        )
        weights = np.linalg.lstsq(edges, (states - rows[0]).T, rcond=None)[0].T  # [n, 2]
        expected = corners[0] + weights @ (corners[1:] - corners[0])
        np.testing.assert_allclose(found["points"][word], expected, atol=2e-3)
    assert found["hidden"]["within"] >= found["plane"]["within"]


def test_words_that_cannot_be_used_are_refused_by_name(run, data):
    for words, message in (
        (["w01", "w02"], "three different words"),
        (["w01", "w02", "w01"], "three different words"),
        (["w01", "w02", "häh"], "'häh' is no single piece"),
        (["w01", "w02", "w01 w02"], "'w01 w02' is no single piece"),
    ):
        with pytest.raises(UserError, match=message):
            projection(run, data, words)
    few = dataclasses.replace(
        data, target_ids=[ids[-1:] for ids in data.target_ids], name="nothing"
    )
    with pytest.raises(UserError, match="'w01' occurs 0 times in nothing"):
        projection(run, few, ["w01", "w02", "w03"])
    assert projection(run, few) is None


def test_rows_on_one_line_are_refused(run, data):
    ids = [run.subwords.encode_target([word])[0][0] for word in ("w01", "w02", "w03")]
    params = {name: np.array(value) for name, value in run.params.items()}
    table = params["target_embedding.table"]
    table[ids[2]] = 3 * table[ids[1]] - 2 * table[ids[0]]
    with pytest.raises(UserError, match="lie on one line"):
        projection(dataclasses.replace(run, params=params), data, ["w01", "w02", "w03"])


def whole_words(line: str, **options) -> list[str]:
    """The pieces of a line that are whole words, of a vocabulary of just these pieces."""
    pieces = ["<pad>", "<unk>", "<s>", "</s>", *dict.fromkeys(line.split())]
    subwords = SimpleNamespace(
        target_size=len(pieces), target_pieces=lambda ids: [pieces[i] for i in ids],
        pad=0, unk=1, bos=2, eos=3, pretokenized=False, joiner="@@ ",
    )  # fmt: skip
    subwords.__dict__.update(options)
    ids = np.array([*map(pieces.index, line.split()), 3])
    whole = _Vocabulary(subwords).whole(ids)
    return [pieces[i] for i, w in zip(ids, whole, strict=True) if w]


def test_a_piece_is_a_word_where_nothing_goes_on():
    assert whole_words("▁de r ▁de ▁die , ▁die s . ▁das") == ["▁de", "▁die", "▁das"]
    assert whole_words("▁de") == ["▁de"]
    assert whole_words("▁ ab ▁- ▁2") == ["▁2"]
    # Text that is cut already: neither half of a split word is one.
    assert whole_words("wa@@ sser ist nass ,", pretokenized=True) == ["ist", "nass"]
    assert whole_words("wa@@ sser", pretokenized=True, joiner="") == ["sser"]
