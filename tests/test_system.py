"""Copying and reversing must be learned perfectly: from text to BLEU, as users run it.

In processes of their own, because the other tests' compiler settings make programs that compile
fast and run slowly.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

WORDS = [f"w{i:02d}" for i in range(16)]
VOCAB = len(WORDS) + 4  # pad, unk, bos, eos

SETTINGS = {
    "data": {
        "train": {"source": "train.source", "target": "train.target"},
        "tests": {"test": {"source": "test.source", "target": "test.target"}},
        "max_length": 16,
        "pretokenized": True,
    },
    "model": {
        "encoder_layers": 2,
        "decoder_layers": 2,
        "width": 64,
        "heads": 4,
        "feed_forward": 128,
        "dropout": 0.0,
    },
    "training": {
        "max_steps": 500,
        "batch_tokens": 1024,
        "shapes": 1,
        "learning_rate": 3e-3,
        "schedule": "linear",
        "warmup_steps": 50,
        "validate_every": 0,
        "checkpoint_every": 500,
        "keep_last": 1,
        "average_last": 0,
    },
    "decoding": {"beam": 2, "batch_sentences": 100},
}


def write_task(folder: Path, task: str) -> Path:
    """4,000 training and 100 test sentences of 2 to 8 words, and the configuration."""
    generator = np.random.default_rng(0)
    for name, count in (("train", 4000), ("test", 100)):
        rows = [
            [WORDS[i] for i in generator.integers(len(WORDS), size=generator.integers(2, 9))]
            for _ in range(count)
        ]
        answers = [row if task == "copy" else row[::-1] for row in rows]
        for side, texts in (("source", rows), ("target", answers)):
            (folder / f"{name}.{side}").write_text("\n".join(map(" ".join, texts)) + "\n")
    settings = {**SETTINGS, "data": {**SETTINGS["data"], "root": str(folder)}}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def swept(config: Path, *smoothing: str) -> list[dict]:
    """results.json of a sweep's runs, in the order of ε."""
    sweep_dir = config.parent / "sweep"
    command = [sys.executable, "-m", "nmt_ls.cli", "sweep", str(config)]
    done = subprocess.run(
        [*command, "--run-dir", str(sweep_dir), "--seeds", "1", "--smoothing", *smoothing],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    runs = json.loads((sweep_dir / "plan.json").read_text())["runs"]
    return [
        json.loads((sweep_dir / run["run"] / "results.json").read_text())["test"] for run in runs
    ]


@pytest.mark.parametrize(("task", "smoothing"), [("copy", ["0"]), ("reverse", ["0", "0.1"])])
def test_a_task_without_doubt_is_learned(task, smoothing, tmp_path):
    hard, *smoothed = swept(write_task(tmp_path, task), *smoothing)
    assert hard["perplexity"] <= 1.02
    assert hard["bleu"] >= 98
    for found in smoothed:
        # With smoothing the best perplexity of certain answers is 1/(1 − ε + ε/V).
        assert found["perplexity"] == pytest.approx(1 / (0.9 + 0.1 / VOCAB), abs=0.02)
        assert found["bleu"] >= 98
