"""Training text as a model knows it: which pairs, and their likelihood."""

import dataclasses

import pytest
from tiny import MODEL, random_params, tiny_config, tiny_data

from nmt_ls.config import CorpusConfig, EvaluationConfig
from nmt_ls.evaluation.evaluate import evaluate, files_as_set
from nmt_ls.evaluation.evaluate import test_sets as sets_of
from nmt_ls.evaluation.training_sample import training_sample
from nmt_ls.training.runs import LoadedRun


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> LoadedRun:
    folder = tmp_path_factory.mktemp("text")
    config = tiny_config(folder, pairs=20)
    tests = {"valid": CorpusConfig(source="valid.en", target="valid.de")}
    data = dataclasses.replace(config.data, tests=tests, max_length=9)
    decoding = dataclasses.replace(config.decoding, beam=1, batch_sentences=8)
    config = dataclasses.replace(config, data=data, decoding=decoding)
    subwords = tiny_data(config).subwords
    params = random_params(MODEL, subwords.source_size, subwords.target_size)
    return LoadedRun(folder, config, subwords, params, "7")


def asking_for(run: LoadedRun, pairs: int) -> LoadedRun:
    asked = dataclasses.replace(run.config.evaluation, training_pairs=pairs)
    return dataclasses.replace(run, config=dataclasses.replace(run.config, evaluation=asked))


def test_nothing_unless_asked_for(run):
    assert EvaluationConfig().training_pairs == 0
    assert training_sample(run) is None


def test_its_likelihood_is_that_of_the_same_lines_as_a_test_set(run):
    sample = training_sample(asking_for(run, 3))
    lines = {
        side: (run.run_dir / f"train.{side}").read_text().splitlines() for side in ("en", "de")
    }
    kept = [i for i in (0, 9, 19) if max(len(lines[s][i].split()) for s in lines) < 9]
    assert 1 <= len(kept) == sample["sentences"]
    assert sample["pairs"] == 3
    for side in lines:
        chosen = "".join(lines[side][i] + "\n" for i in kept)
        (run.run_dir / f"chosen.{side}").write_text(chosen)
    same = files_as_set(run, run.run_dir / "chosen.en", [run.run_dir / "chosen.de"])
    results = evaluate(run, same).results
    for name in ("nll_per_token", "tokens", "accuracy", "ece", "entropy"):
        assert sample[name] == pytest.approx(results[name]), name


def test_more_than_there_are_is_all_that_training_keeps(run):
    prepared = tiny_data(run.config)
    assert 0 < len(prepared.train) < 20  # some are too long
    assert training_sample(asking_for(run, 1000))["sentences"] == len(prepared.train)


def test_results_hold_it(run):
    (data,) = sets_of(run)
    sample = training_sample(asking_for(run, 3))
    assert evaluate(run, data, training=sample).results["training"] == sample
