"""Empty translations and beam curves of a model whose preferences are known."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from tiny import MODEL, random_params, tiny_config, tiny_data

from nmt_ls.config import DecodingConfig
from nmt_ls.data.evaluation_sets import EvaluationSet
from nmt_ls.decoding.scoring import score_tokens
from nmt_ls.decoding.translator import Translator
from nmt_ls.evaluation.search_health import beam_curve, empty_translations, strategies
from nmt_ls.evaluation.translation import translation_metrics
from nmt_ls.training.runs import LoadedRun

SOURCES = ["w01 w02 w03", "", "w07", "w30 w31 w32 w33"]


@pytest.fixture(scope="module")
def data_and_run(tmp_path_factory):
    config = tiny_config(tmp_path_factory.mktemp("tiny"))
    subwords = tiny_data(config).subwords
    params = random_params(MODEL, subwords.source_size, subwords.target_size)
    decoding = DecodingConfig(beam=2, batch_sentences=8, max_length_ratio=1.0, max_length_extra=4)
    config = dataclasses.replace(config, decoding=decoding)
    data = EvaluationSet(
        "test", SOURCES, [[s or "w01"] for s in SOURCES],
        [np.array(ids, np.int32) for ids in subwords.encode_source(SOURCES)],
        [np.array(ids, np.int32) for ids in subwords.encode_target(SOURCES)], 0.0, "",
    )  # fmt: skip
    return data, LoadedRun(Path(), config, subwords, params, "none")


def test_the_empty_translation_against_the_output(data_and_run) -> None:
    data, run = data_and_run
    ids = [x.tolist() for x in data.source_ids]
    outputs = Translator.of([run]).translate_ids(ids)
    found = empty_translations(run, data, outputs)
    subwords, kept = run.subwords, [0, 2, 3]
    ends = score_tokens(MODEL, subwords, run.params, [ids[i] for i in kept], [[subwords.eos]] * 3)
    log_p = np.array([-float(s.nll[0]) for s in ends])
    assert found["empty_prob"] == pytest.approx(np.mean(np.exp(log_p)), rel=1e-5)
    better = [e > outputs[i].log_prob for e, i in zip(log_p, kept, strict=True)]
    assert found["empty_better"] == pytest.approx(np.mean(better))
    # A bias towards the end makes every empty translation the better one.
    wanted = dataclasses.replace(outputs[0], tokens=tuple([5] * 6 + [subwords.eos]))
    assert empty_translations(run, data, [wanted] * 4)["empty_better"] == 1
    nothing = EvaluationSet("none", [""], [["x"]], [ids_of_nothing(run)], [], 0.0, "")
    assert empty_translations(run, nothing, outputs[:1]) == {
        "empty_better": None,
        "empty_prob": None,
    }


def ids_of_nothing(run) -> np.ndarray:
    return np.array([run.subwords.eos], np.int32)


def test_wider_beams_find_more_probable_outputs(data_and_run) -> None:
    data, run = data_and_run
    curve = beam_curve(run, data, [1, 2, 20])
    assert [point["beam"] for point in curve] == [1, 2, 20]
    log_probs = [point["mean_log_prob"] for point in curve]
    assert log_probs[2] >= log_probs[0] - 1e-5
    assert set(curve[0]) == {"beam", "bleu", "length_ratio", "empty_outputs", "mean_log_prob"}


def test_other_strategies_are_those_of_the_translator(data_and_run) -> None:
    data, run = data_and_run
    decoding = dataclasses.replace(run.config.decoding, samples=4)
    run = dataclasses.replace(run, config=dataclasses.replace(run.config, decoding=decoding))
    found = strategies(run, data, ["sample", "mbr"])
    assert set(found) == {"sample", "mbr"}
    for name, measured in found.items():
        one = Translator.of([run], dataclasses.replace(decoding, strategy=name))
        outputs = [t.text for t in one.translate(SOURCES)]
        assert measured["bleu"] == translation_metrics(outputs, data.references)["bleu"]
