"""The same weights on all sides: greedy search says the same everywhere."""

import dataclasses
import json
from pathlib import Path

import pytest
from test_interchange_marian import FIXTURES, imported

from nmt_ls.bench.decode import describe
from nmt_ls.bench.decoding.peers import CTRANSLATE2, HUGGING_FACE, installed
from nmt_ls.bench.decoding.run import OURS, measure_run
from nmt_ls.cli import main
from nmt_ls.config_files import load_resolved, save_config

LINES = ["The old man carries bread.", "", "river", "A dog", "The man carries the river."]


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A run whose outputs may have 12 tokens, whatever the source, and some lines of text."""
    base = tmp_path_factory.mktemp("decode_run")
    imported(FIXTURES / "opus", base / "run")
    config = load_resolved(base / "run" / "config.yaml")
    decoding = dataclasses.replace(
        config.decoding, max_length_ratio=0.0, max_length_extra=12,
        # which the others do not have
        temperature=0.5, no_repeat_ngram=1,
    )  # fmt: skip
    save_config(dataclasses.replace(config, decoding=decoding), base / "run" / "config.yaml")
    (base / "text").write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return base


@pytest.fixture(scope="module")
def result(folder: Path) -> dict:
    return measure_run(folder / "run", source=folder / "text", beam=1, batch_sentences=4, repeats=1)


def test_sentences_are_real_and_empty_ones_left_out(result: dict) -> None:
    json.dumps(result)
    assert result["settings"]["sentences"] == 4
    assert result["settings"]["source"] == "text"
    without = ["decoding.temperature=0.5", "decoding.no_repeat_ngram=1"]
    assert result["settings"]["without"] == without
    assert 1 <= result["outputs_tokens"] <= 12
    ours = result["sides"][0]
    assert ours["name"] == OURS
    assert ours["sentences_per_second"] == 4 / ours["repeats"][0]


@pytest.mark.parametrize("peer", [CTRANSLATE2, HUGGING_FACE])
def test_greedy_outputs_are_the_same(result: dict, peer: str) -> None:
    if peer not in installed():
        pytest.skip(f"{peer} is not installed")
    assert result["equal"][peer] == 1.0
    assert [r["beside"] for r in result["ratios"]].count(peer) == 1


def test_the_description_says_what_was_measured(result: dict) -> None:
    told = {**result, "equal": {"PEER": 0.25}, "left_out": {"OTHER": "it cannot hold it"}}
    text = describe(told)
    assert "4 sentences of text by run" in text
    assert "25.0% of PEER's outputs are ours" in text
    assert "left out: OTHER: it cannot hold it" in text


def test_options_that_do_not_go_together(folder: Path, capsys) -> None:
    run = str(folder / "run")
    assert main(["bench", "decode", "--run", run, "--lines", "5"]) == 2
    assert "--lines and --run" in capsys.readouterr().err
    assert main(["bench", "decode", "--compute", "bfloat16"]) == 2
    assert "--run" in capsys.readouterr().err
    assert main(["bench", "decode", "--run", str(folder / "none")]) == 2
    assert "is not a run directory" in capsys.readouterr().err
    (folder / "nothing").write_text("\n\n")
    assert main(["bench", "decode", "--run", run, "--input", str(folder / "nothing")]) == 2
    assert "no sentence" in capsys.readouterr().err
