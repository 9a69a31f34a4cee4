"""Seconds of training until a BLEU, by the records of a run and its checkpoints."""

import dataclasses
import json
from pathlib import Path

import pytest
from tiny import tiny_config, tiny_data

from nmt_ls.bench.gpu.time_to_quality import main, seconds_until
from nmt_ls.config import DecodingConfig, EvaluationConfig
from nmt_ls.training.trainer import fit

RECORDS = [
    {"step": 10, "seconds": 5.0, "steps": 10},
    {"step": 10, "validation": 1},
    {"step": 30, "seconds": 4.0, "steps": 20, "loss": None},
    # Killed and continued from a checkpoint at step 34: nobody counts 31 to 34.
    {"step": 40, "seconds": 3.0, "steps": 6},
]


def test_seconds_by_hand() -> None:
    assert seconds_until(RECORDS, 10) == 5
    assert seconds_until(RECORDS, 5) == 2.5
    assert seconds_until(RECORDS, 20) == 7
    assert seconds_until(RECORDS, 30) == 9
    assert seconds_until(RECORDS, 34) == 11
    assert seconds_until(RECORDS, 40) == 14
    with pytest.raises(ValueError, match="step 41"):
        seconds_until(RECORDS, 41)


def test_a_run_along_its_checkpoints(tmp_path: Path, monkeypatch) -> None:
    config = tiny_config(tmp_path / "text", pairs=40, max_steps=8, checkpoint_every=2, shapes=1,
                         keep_last=4)  # fmt: skip
    tests = {"test": config.data.validation}
    config = dataclasses.replace(
        config,
        data=dataclasses.replace(config.data, tests=tests),
        decoding=DecodingConfig(beam=1, max_length_ratio=0.0, max_length_extra=4),
        evaluation=EvaluationConfig(fit=False, empty=False),
    )
    run, output = tmp_path / "run", tmp_path / "found.json"
    fit(config, tiny_data(config), run)
    options = [str(run), "--output", str(output), "--average", "2", "--every", "1"]
    assert main([*options, "--bleu", "101"]) == 0
    found = json.loads(output.read_text())
    assert [point["step"] for point in found["curve"]] == [4, 6, 8]
    seconds = [point["seconds"] for point in found["curve"]]
    assert 0 < seconds[0] < seconds[1] < seconds[2]
    assert found["step"] is None and found["seconds"] is None

    # What is known is not evaluated again; any BLEU is at least 0.
    monkeypatch.setattr("nmt_ls.bench.gpu.time_to_quality.Translator", None)
    assert main([*options, "--bleu", "0"]) == 0
    found = json.loads(output.read_text())
    assert (found["step"], found["seconds"]) == (4, seconds[0])
    assert main([str(run), "--output", str(output), "--bleu", "1", "--average", "9"]) == 2
