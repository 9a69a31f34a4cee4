"""Copying and reversing must be learned perfectly: the whole path from text to BLEU."""

import json

import numpy as np
import pytest

from nmt_ls.config import (
    Config,
    CorpusConfig,
    DataConfig,
    DecodingConfig,
    LossConfig,
    ModelConfig,
    TrainingConfig,
)
from nmt_ls.study.runs import evaluate_run, train_run

WORDS = [f"w{i:02d}" for i in range(16)]
VOCAB = len(WORDS) + 4  # pad, unk, bos, eos


def write_task(folder, task):
    generator = np.random.default_rng(0)
    for name, count in (("train", 4000), ("test", 100)):
        rows = [
            [WORDS[i] for i in generator.integers(len(WORDS), size=generator.integers(2, 9))]
            for _ in range(count)
        ]
        answers = [row if task == "copy" else row[::-1] for row in rows]
        for side, texts in (("source", rows), ("target", answers)):
            (folder / f"{name}.{side}").write_text("\n".join(map(" ".join, texts)) + "\n")


def measured(folder, label_smoothing):
    config = Config(
        data=DataConfig(
            root=str(folder),
            train=CorpusConfig(source="train.source", target="train.target"),
            tests={"test": CorpusConfig(source="test.source", target="test.target")},
            max_length=16,
            pretokenized=True,
        ),
        model=ModelConfig(
            encoder_layers=2, decoder_layers=2, width=64, heads=4, feed_forward=128, dropout=0.0
        ),
        loss=LossConfig(label_smoothing=label_smoothing),
        training=TrainingConfig(
            max_steps=500, batch_tokens=1024, shapes=1, learning_rate=3e-3, schedule="linear",
            warmup_steps=50, devices=1, validate_every=0, checkpoint_every=500, keep_last=1,
            average_last=0,
        ),
        decoding=DecodingConfig(beam=2, batch_sentences=104),
    )  # fmt: skip
    run_dir = folder / f"run_{label_smoothing}"
    train_run(config, run_dir)
    evaluate_run(run_dir)
    return json.loads((run_dir / "results.json").read_text())["test"]


@pytest.mark.parametrize("task", ["copy", "reverse"])
def test_a_task_without_doubt_is_learned(task, tmp_path):
    write_task(tmp_path, task)
    found = measured(tmp_path, 0.0)
    assert found["perplexity"] <= 1.02
    assert found["bleu"] >= 98
    if task == "reverse":
        # With smoothing the best perplexity of certain answers is 1/(1 − ε + ε/V).
        smoothed = measured(tmp_path, 0.1)
        assert smoothed["perplexity"] == pytest.approx(1 / (0.9 + 0.1 / VOCAB), abs=0.02)
        assert smoothed["bleu"] >= 98
