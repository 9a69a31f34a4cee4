"""Copying and reversing must be learned perfectly: from text to BLEU, as users run it.

In a process of its own, because the other tests' compiler settings make programs that compile
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
TASKS = {"copy": 1, "reverse": -1}
VOCAB = len(WORDS) + len(TASKS) + 4  # pad, unk, bos, eos

SETTINGS = {
    "data": {
        "train": {"source": "train.source", "target": "train.target"},
        "tests": {task: {"source": f"{task}.source", "target": f"{task}.target"} for task in TASKS},
        "max_length": 16,
        "pretokenized": True,
    },
    "model": {
        "encoder_layers": 1,
        "decoder_layers": 1,
        "width": 64,
        "heads": 4,
        "feed_forward": 128,
        "dropout": 0.0,
    },
    "training": {
        "max_steps": 500,
        "batch_tokens": 512,
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
    "evaluation": {"empty": False},
}


def write_texts(folder: Path) -> Path:
    """Sentences of 2 to 6 words after the task's name, and the configuration.

    4,000 to train on, half of them of each task; 100 to test each.
    """
    generator = np.random.default_rng(0)
    for name, count, tasks in (
        ("train", 4000, list(TASKS)),
        *((task, 100, [task]) for task in TASKS),
    ):
        sources, targets = [], []
        for i in range(count):
            task = tasks[i % len(tasks)]
            words = [
                WORDS[j] for j in generator.integers(len(WORDS), size=generator.integers(2, 7))
            ]
            sources.append(" ".join([task, *words]))
            targets.append(" ".join(words[:: TASKS[task]]))
        for side, texts in (("source", sources), ("target", targets)):
            (folder / f"{name}.{side}").write_text("\n".join(texts) + "\n")
    settings = {**SETTINGS, "data": {**SETTINGS["data"], "root": str(folder)}}
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def test_tasks_without_doubt_are_learned(tmp_path):
    config, sweep_dir = write_texts(tmp_path), tmp_path / "sweep"
    # A shard draws no report: that is tested elsewhere.
    options = ["--seeds", "1", "--smoothing", "0", "0.1", "--shard", "1/1"]
    done = subprocess.run(
        [sys.executable, "-m", "nmt_ls.cli", "sweep", config, "--run-dir", sweep_dir, *options],
        env={k: v for k, v in os.environ.items() if k != "XLA_FLAGS"},
        cwd=Path(__file__).parent.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    hard, smoothed = (
        json.loads((sweep_dir / f"smoothing_{epsilon}_seed_1" / "results.json").read_text())
        for epsilon in (0.0, 0.1)
    )
    for task in TASKS:
        assert hard[task]["perplexity"] <= 1.02
        assert hard[task]["bleu"] >= 98
        # With smoothing the best perplexity of certain answers is 1/(1 − ε + ε/V).
        best = 1 / (0.9 + 0.1 / VOCAB)
        assert smoothed[task]["perplexity"] == pytest.approx(best, abs=0.02)
        assert smoothed[task]["bleu"] >= 98
