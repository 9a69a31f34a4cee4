"""An imported model is a run like any other: it translates, scores and is trained further."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file
from test_interchange_marian import FIXTURES, exported, imported
from test_subwords import ENGLISH, GERMAN

from nmt_ls.cli import main
from nmt_ls.training.runs import load_run


def test_translate_score_and_fine_tune(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = imported(FIXTURES / "opus", tmp_path / "run")
    source, target = tmp_path / "text.en", tmp_path / "text.de"
    source.write_text("The old man carries bread.\n\nriver\n", encoding="utf-8")
    target.write_text("Der alte Mann.\n\nFluss\n", encoding="utf-8")
    command = ["translate", str(run.run_dir), "--input", str(source), "--beam", "1"]
    assert main(command) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and lines[0] and not lines[1]
    command = ["score", str(run.run_dir), "--source", str(source), "--target", str(target)]
    assert main(command) == 0
    records = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    ids = run.subwords.encode_target(["Der alte Mann.", "", "Fluss"])
    assert [record["tokens"] for record in records] == [len(row) for row in ids]

    # It has no text of its own …
    config = yaml.safe_load((run.run_dir / "config.yaml").read_text())
    path = tmp_path / "tuning.yaml"
    path.write_text(yaml.safe_dump(config))
    assert main(["train", str(path), "--run-dir", str(tmp_path / "none")]) == 2
    assert "data.train.kind=none" in capsys.readouterr().err
    # … but a copy of its configuration may name some.
    source.write_text("\n".join(ENGLISH[:16]) + "\n", encoding="utf-8")
    target.write_text("\n".join(GERMAN[:16]) + "\n", encoding="utf-8")
    config["data"]["train"] = {"source": str(source), "target": str(target)}
    config["training"] |= {
        "init_from": str(run.run_dir), "max_steps": 2, "batch_tokens": 256, "shapes": 1,
        "devices": 1, "validate_every": 0, "average_last": 0, "warmup_steps": 0,
    }  # fmt: skip
    path.write_text(yaml.safe_dump(config))
    assert main(["train", str(path), "--run-dir", str(tmp_path / "tuned")]) == 0
    tuned = load_run(tmp_path / "tuned")
    assert tuned.subwords.fingerprint == run.subwords.fingerprint
    moved = {k: np.abs(v - run.params[k]).max() for k, v in tuned.params.items()}
    assert 0 < moved["output_bias"] < 0.01 and 0 < moved["target_embedding.table"] < 0.01

    # It goes back with key biases of zero, and with the pieces of before.
    tensors = exported(tmp_path / "tuned", tmp_path / "back")
    before = load_file(FIXTURES / "opus" / "model.safetensors")
    assert tensors.keys() == before.keys()
    for name, value in tensors.items():
        if name.endswith("k_proj.bias"):
            assert not value.any() and before[name].any()
    assert json.loads((tmp_path / "back" / "vocab.json").read_text()) == json.loads(
        (FIXTURES / "opus" / "vocab.json").read_text()
    )
