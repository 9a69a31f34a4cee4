"""Likelihood, evaluation and validation."""

import contextlib
import dataclasses
import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from tiny import MODEL, random_params, tiny_config, tiny_data

from nmt_ls.config import CorpusConfig, DecodingConfig, LossConfig
from nmt_ls.data import corpora
from nmt_ls.data.evaluation_sets import EvaluationSet, fingerprint_now
from nmt_ls.decoding.translator import Translator
from nmt_ls.errors import UserError
from nmt_ls.evaluation import evaluate as evaluate_module
from nmt_ls.evaluation import results as results_module
from nmt_ls.evaluation.completeness import is_complete
from nmt_ls.evaluation.evaluate import (
    Evaluation,
    evaluate,
    files_as_set,
    make_validator,
)
from nmt_ls.evaluation.evaluate import test_sets as sets_of
from nmt_ls.evaluation.likelihood import likelihood
from nmt_ls.evaluation.results import finite, store_results
from nmt_ls.losses import TokenStatistics
from nmt_ls.training.runs import LoadedRun

UNKNOWN = 1


def statistics(nll, correct=None):
    n = len(nll)
    ones = np.ones(n, np.float32)
    return TokenStatistics(
        nll=np.array(nll, np.float32),
        entropy=ones,
        log_z=ones,
        confidence=ones * 0.5,
        correct=np.array(correct or [1] * n, np.float32),
    )


def evaluation_set(references, target_ids):
    return EvaluationSet(
        name="test",
        sources=["x"] * len(references),
        references=[[r] for r in references],
        source_ids=[np.array([4, 3], np.int32)] * len(references),
        target_ids=[np.array(ids, np.int32) for ids in target_ids],
        unk_share=0.0,
        fingerprint="",
    )


def test_likelihood_by_hand():
    data = evaluation_set(["häh", "ab"], [[5, 3], [6, 7, 3]])
    found = likelihood([statistics([1.0, 2.0]), statistics([0.5, 0.5, 1.0])], data, UNKNOWN)
    assert found["tokens"] == 5
    assert found["nll_total"] == pytest.approx(5.0)
    assert found["nll_per_token"] == pytest.approx(1.0)
    assert found["perplexity"] == pytest.approx(math.e)
    assert found["nll_per_character"] == pytest.approx(5.0 / 5)  # code points, not bytes
    assert found["mean_confidence"] == pytest.approx(0.5)
    assert found["accuracy"] == 1


def test_calibration_without_the_end_by_hand():
    data = evaluation_set(["a b", "c"], [[5, 6, 3], [7, 3]])
    found = likelihood(
        [statistics([1.0, 2.0, 9.0], [1, 0, 0]), statistics([3.0, 9.0], [1, 0])], data, UNKNOWN
    )
    assert found["accuracy"] == pytest.approx(0.4)
    without = found["without_end_of_sentence"]
    assert without["accuracy"] == pytest.approx(2 / 3)
    assert without["ece"] == pytest.approx(2 / 3 - 0.5)
    assert without["nll_per_token"] == pytest.approx(2.0)


def test_an_unknown_word_hides_its_characters():
    data = evaluation_set(["a"], [[UNKNOWN, 3]])
    assert likelihood([statistics([1.0, 1.0])], data, UNKNOWN)["nll_per_character"] is None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    config = tiny_config(folder)
    tests = {
        "valid": CorpusConfig(source="valid.en", target="valid.de"),
        "two": CorpusConfig(source="valid.en", target=("valid.de", "valid.en")),
    }
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, tests=tests),
        decoding=DecodingConfig(beam=2, batch_sentences=8),
    )
    subwords = tiny_data(config).subwords
    params = random_params(MODEL, subwords.source_size, subwords.target_size)
    return LoadedRun(folder, config, subwords, params, "7")


def test_what_results_hold(run, tmp_path):
    data, two = sets_of(run)
    evaluation = evaluate(run, data)
    results, translations, _ = evaluation
    wanted = (
        "bleu chrf ter bleu_signature nll_per_token perplexity nll_per_character ece"
        " mean_confidence accuracy sentences tokens decode checkpoint"
    )
    assert set(wanted.split()) <= set(results)
    assert results["sentences"] == len(translations) == 8
    assert results["tokens"] == sum(map(len, data.target_ids))
    assert results["checkpoint"] == "7"
    assert results["decode"]["beam"] == 2
    assert two.references[0] == [data.references[0][0], data.sources[0]]
    store_results(tmp_path, data, evaluation, run.subwords)
    store_results(tmp_path, two, evaluation, run.subwords)
    stored = json.loads((tmp_path / "results.json").read_text())
    assert set(stored) == {"valid", "two"}
    assert stored["valid"]["perplexity"] == results["perplexity"]
    lines = (tmp_path / "translations" / "valid.txt").read_text().split("\n")
    assert lines == [*(t.text for t in translations), ""]
    text = (tmp_path / "translations" / "valid.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    assert [r["translation"] for r in records] == [t.text for t in translations]
    assert sum(r["reference_nll"] for r in records) == pytest.approx(results["nll_total"])
    assert sum(r["reference_tokens"] for r in records) == results["tokens"]
    for record, translation in zip(records, translations, strict=True):
        assert len(record["pieces"]) == len(translation.tokens)
        assert sum(record["token_log_probs"]) == pytest.approx(record["log_prob"], abs=1e-4)


def test_everything_is_stored_under_one_lock(tmp_path, monkeypatch):
    """And the translations that the results are of are ours, whosever file is there."""
    data, held, written = evaluation_set([], []), [], []

    @contextlib.contextmanager
    def lock(path, *, wait):
        held.append(path.name)
        yield
        held.pop()

    def write(path: Path, text: str) -> None:
        written.append((path.name, list(held)))
        path.write_text("another's\n" if path.name == "test.txt" else text)

    monkeypatch.setattr(results_module, "file_lock", lock)
    monkeypatch.setattr(results_module, "write_beside", write)
    store_results(tmp_path, data, Evaluation({}, [], []), None)
    names = ["test.txt", "test.source.txt", "test.references.json", "test.jsonl", "results.json"]
    assert written == [(name, [".results.lock"]) for name in names]
    stored = json.loads((tmp_path / "results.json").read_text())
    assert stored["test"]["translations_sha256"] == hashlib.sha256(b"").hexdigest()


def test_damaged_results_are_put_aside_and_cost_no_evaluation(tmp_path, caplog):
    (tmp_path / "results.json").write_text('{"other": {"bleu": 1')
    store_results(tmp_path, evaluation_set([], []), Evaluation({"bleu": 2.0}, [], []), None)
    assert json.loads((tmp_path / "results.json").read_text())["test"]["bleu"] == 2
    assert (tmp_path / "results.json.damaged").read_text() == '{"other": {"bleu": 1'
    assert "results.json was damaged and is results.json.damaged now" in caplog.text


def test_other_measures_when_asked_for(run):
    (data,) = sets_of(run, ["valid"])
    asked = dataclasses.replace(
        run.config.evaluation, strategies=("sample",), lowercase_tokenized=True, beams=(1, 2)
    )
    short = dataclasses.replace(run.config.decoding, max_source_length=4)
    config = dataclasses.replace(run.config, evaluation=asked, decoding=short)
    results = evaluate(dataclasses.replace(run, config=config), data).results
    assert set(results["strategies"]) == {"sample"}
    assert "lc" in results["bleu_lowercase_tokenized_signature"]
    assert [point["beam"] for point in results["beam_curve"]] == [1, 2]
    assert results["truncated_sources"] == sum(len(ids) > 4 for ids in data.source_ids) > 0
    stored = json.loads(json.dumps(finite(results)))
    unfitted = dataclasses.replace(config, evaluation=dataclasses.replace(asked, fit=False))
    assert is_complete(stored, unfitted, data.fingerprint)
    assert not is_complete(stored, config, data.fingerprint)
    # Words of pretokenized text are known too.
    assert results["inference_calibration"]["tokens"] > 0


def test_perplexity_does_not_know_the_smoothing(run):
    """The same parameters give the same perplexity to the last bit, whatever ε and convention."""
    (data,) = sets_of(run, ["valid"])
    found = set()
    for loss in (
        LossConfig(label_smoothing=0.0),
        LossConfig(label_smoothing=0.3),
        LossConfig(label_smoothing=0.9, convention="joeynmt", z_loss=0.1),
    ):
        config = dataclasses.replace(run.config, loss=loss)
        results = evaluate(dataclasses.replace(run, config=config), data).results
        found.add((results["perplexity"], results["nll_total"], results["ece"]))
    assert len(found) == 1


def test_validation_agrees_with_evaluation(run):
    config = run.config
    data = tiny_data(config)
    measured = make_validator(config, data)(run.params, 3)
    (valid,) = sets_of(run, ["valid"])
    greedy = dataclasses.replace(config.decoding, beam=1)
    one = dataclasses.replace(run, config=dataclasses.replace(config, decoding=greedy))
    results = evaluate(one, valid).results
    assert measured["perplexity"] == results["perplexity"]
    assert measured["bleu"] == results["bleu"]


def test_a_model_that_has_become_nan_is_validated_as_nan(run):
    """The step may be skipped, or others be trained beside it: no reason to end everything."""
    spoiled = {name: np.full_like(value, np.nan) for name, value in run.params.items()}
    measured = make_validator(run.config, tiny_data(run.config))(spoiled, 3)
    assert math.isnan(measured["nll"]) and math.isnan(measured["perplexity"])


@pytest.mark.parametrize("asked", [{"groups": 2}, {"strategy": "mbr"}])
def test_validation_is_greedy_whatever_the_run_decodes_with(asked, run, monkeypatch):
    """And settings of a wider beam, or of none, end no training."""
    used = []

    def started(models, params, subwords, decoding):
        used.append(decoding)
        return Translator(models, params, subwords, decoding)

    monkeypatch.setattr(evaluate_module, "Translator", started)
    decoding = dataclasses.replace(run.config.decoding, **asked)
    config = dataclasses.replace(run.config, decoding=decoding)
    assert math.isfinite(make_validator(config, tiny_data(config))(run.params, 3)["bleu"])
    assert (used[0].strategy, used[0].beam, used[0].groups) == ("beam", 1, 1)


def test_pieces_across_words_have_no_inference_calibration(run, monkeypatch):
    (data,) = sets_of(run, ["valid"])
    monkeypatch.setattr(
        evaluate_module, "marked_pieces", lambda pieces, _: ["▁New▁York"] * len(pieces)
    )
    results = evaluate(run, data).results
    assert "inference_calibration" not in results
    assert results["risk_coverage"]


def test_unknown_sets_are_refused(run):
    with pytest.raises(UserError, match="--split nope: the run has valid, two"):
        sets_of(run, ["nope"])


def test_files_of_ones_own(run, tmp_path):
    (tmp_path / "a.en").write_text("w01\n\nw02 w03\n")
    (tmp_path / "a.de").write_text("w01\nw05\nw03 w02\n")
    data = files_as_set(run, tmp_path / "a.en", [tmp_path / "a.de"])
    assert data.name == "a"
    assert data.sources == ["w01", "", "w02 w03"]
    assert data.references == [["w01"], ["w05"], ["w03 w02"]]


def test_files_do_not_take_the_place_of_stored_sources(run, tmp_path):
    files = [tmp_path / f"valid.source.{ending}" for ending in ("txt", "de")]
    for file in files:
        file.write_text("w01\n")
    with pytest.raises(UserError, match=r"results of valid\.source would lie where a run keeps"):
        files_as_set(run, files[0], files[1:])


@pytest.mark.parametrize("name", ["valid", "validation"])
def test_files_do_not_take_the_name_of_a_configured_set(run, tmp_path, name):
    place = {"valid": "data.tests.valid", "validation": "data.validation"}[name]
    config = dataclasses.replace(
        run.config,
        data=dataclasses.replace(run.config.data, validation=run.config.data.tests["valid"]),
    )
    run = dataclasses.replace(run, config=config)
    files = [tmp_path / f"{name}.{language}" for language in ("en", "de")]
    for file in files:
        file.write_text((run.run_dir / f"valid{file.suffix}").read_text())
    same = files_as_set(run, files[0], files[1:])
    assert same.name == name and len(same.sources) == 8
    files[1].write_text("w01\n" * 8)
    with pytest.raises(UserError, match=f"{place} of .* has that name and other text") as refused:
        files_as_set(run, files[0], files[1:])
    assert f"such as my-{name}.en" in str(refused.value)
    assert str(refused.value).count("\n") == 1


def test_the_fingerprint_of_a_set_is_known_without_encoding_it(run):
    for name, corpus in run.config.data.tests.items():
        (data,) = sets_of(run, [name])
        found = fingerprint_now(name, corpus, run.config.data, run.subwords)
        assert found == data.fingerprint


def test_what_datasets_loads_is_asked_for_once(run, monkeypatch):
    calls = []
    monkeypatch.setattr(
        corpora, "content_fingerprint", lambda *_, key: calls.append(key) or f"text of {key}"
    )
    hub = CorpusConfig(kind="datasets", path="somebody/once")
    data = dataclasses.replace(run.config.data, tests={"hub": hub, "valid": hub})
    names = ("hub", "hub", "valid", "hub")
    found = {fingerprint_now(name, hub, data, run.subwords) for name in names}
    assert calls == ["data.tests.hub", "data.tests.valid"] and len(found) == 2


def test_json_has_no_nan():
    assert finite({"a": [math.nan, 1.0], "b": np.float32(2)}) == {"a": [None, 1.0], "b": 2.0}
