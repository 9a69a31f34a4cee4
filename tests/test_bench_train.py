"""The benchmark of training at tiny size: what it reports, not how fast it is."""

import contextlib
import io
import json
import os
from importlib.util import find_spec
from statistics import median

import numpy as np
import pytest

from nmt_ls.bench.train import OURS, bench_train, setting_of
from nmt_ls.bench.training.peers import (
    COMPILED,
    EAGER,
    PEERS,
    PeerWorker,
    installed,
    recut,
    write_task,
)
from nmt_ls.bench.training.products import Product, Products, products_of
from nmt_ls.bench.training.task import Task, make_task, representative_steps
from nmt_ls.cli import main
from nmt_ls.data.batches import BatchPlan
from nmt_ls.parallel import DataParallel

TORCH = find_spec("torch") is not None
SETTINGS = ["training.devices=1", "training.shapes=2", "data.train.size=200"]


@pytest.fixture(scope="module")
def task() -> Task:
    return make_task(
        "tiny", steps=2, batch_tokens=256, compute="float32", config=None, overrides=SETTINGS
    )


@pytest.fixture(scope="module")
def measured(tmp_path_factory) -> tuple[dict, str]:
    """What the verb writes and prints."""
    path = tmp_path_factory.mktemp("bench") / "train.json"
    arguments = ["bench", "train", "--size", "tiny", "--steps", "2", "--repeats", "2"]
    for setting in SETTINGS:
        arguments += ["--set", setting]
    arguments += ["--peers", *(["torch"] if TORCH else []), "--output", str(path)]
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        assert main(arguments) == 0
    return json.loads(path.read_text()), printed.getvalue()


def test_sides_train_on_the_same_tokens(measured, task: Task) -> None:
    result, _ = measured
    assert [side["name"] for side in result["sides"]] == [OURS, EAGER][: 1 + TORCH]
    real = sum(int((batch.target != task.special["pad"]).sum()) for batch in task.batches)
    assert result["tokens"] == task.tokens == real
    assert result["positions"] == sum(batch.target.size for batch in task.batches)
    assert result["settings"]["model"] == {"layers": 1, "width": 32, "feed_forward": 64}
    assert result["settings"]["precision"] == ""
    for side in result["sides"]:
        assert side["device"] == "cpu"
        assert side["tokens"] == real
        assert side["tokens_per_second"] == real / median(side["repeats"])
        # Nothing has been learnt: each piece as probable as any other, but for the noise of the
        # first parameters, whose logits have a variance of about 1.
        assert np.log(300) - 0.2 < side["loss"] < np.log(300) + 1.5


def test_the_ratio_is_that_of_medians(measured) -> None:
    result, _ = measured
    seconds = {side["name"]: median(side["repeats"]) for side in result["sides"]}
    for ratio in result["ratios"]:
        assert ratio["ratio"] == seconds[ratio["beside"]] / seconds[OURS]
        assert ratio["wanted"] == 1.8
    alone = result["products"]
    assert alone["efficiency"] == median(alone["repeats"]) / seconds[OURS]
    rate = alone["operations"] / seconds[OURS]
    assert alone["utilisation"] == pytest.approx(rate / alone["fastest_rate"])


def test_the_table_names_machine_and_figures(measured) -> None:
    result, text = measured
    assert result["machine"]["processor"] in text
    assert "the built-in phrasebook" in text
    for side in result["sides"]:
        assert side["name"] in text
        assert f"{side['parameters']:,}" in text
    assert f"{result['tokens'] / result['positions']:.1%} of these batches" in text


@pytest.mark.skipif(not TORCH, reason="torch is not installed")
def test_torch_has_our_parameters_and_the_keys_biases(measured) -> None:
    ours, torch = measured[0]["sides"]
    # 1 + 1 layers: three attention blocks, whose keys have biases of width 32.
    assert torch["parameters"] == ours["parameters"] + 3 * 32


@pytest.mark.skipif("marian" not in installed(), reason="transformers is not installed")
def test_marian_trains(task: Task, tmp_path) -> None:
    write_task(tmp_path, setting_of(task), task.batches)
    with PeerWorker(PEERS["marian"], tmp_path) as worker:
        said = worker.about()
        assert said["tokens"] == task.tokens
        assert worker.run() > 0


def test_sentences_in_batches_of_another_cut(task: Task) -> None:
    cut = recut(task.batches, 64, task.special["pad"])
    assert sum(int(batch[3].sum()) for batch in cut) == task.tokens
    both = []
    for batches in (task.batches, cut):
        rows = [row[:n] for batch in batches for row, n in zip(batch[2], batch[3], strict=True)]
        both.append(sorted(row.tolist() for row in rows if len(row)))
    assert both[0] == both[1]
    for i, (_, source_lengths, _, target_lengths) in enumerate(cut):
        longer = np.maximum(source_lengths, target_lengths)
        # Full with its last sentence, not before; the last batch is what is left.
        assert max(longer[:-1], default=0) * (len(longer) - 1) < 64
        assert max(longer) * len(longer) >= 64 or i == len(cut) - 1


def test_a_peer_that_fails_says_so(task: Task, tmp_path) -> None:
    write_task(tmp_path, setting_of(task), task.batches)
    (tmp_path / "setting.json").write_text("{}")
    with (
        PeerWorker(COMPILED, tmp_path) as worker,
        pytest.raises(ValueError, match=r"compiled ended: .*(Error|torch)"),
    ):
        worker.about()


def test_products_are_the_steps(task: Task) -> None:
    batch = task.batches[0]
    rows, source = batch.source.shape
    target = batch.target.shape[1]
    width, inner, heads, size = 32, 64, 2, task.vocab_size
    # Multiplications of the forward pass; of the backward pass twice as many.
    dense = rows * source * (4 * width**2 + 2 * width * inner + 2 * width**2)  # encoder, memory
    dense += rows * target * (6 * width**2 + 2 * width * inner + width * size)
    attention = 2 * rows * width * (source**2 + target**2 + source * target)
    # Σ u·logits and its gradient: products of vectors.
    found = products_of(task, batch)
    whole = sum(p.operations * times for p, times in found.items())
    assert 3 * 2 * (dense + attention) <= whole
    chunk = max(p.rows for p in found)
    vectors = sum(p.operations * n for p, n in found.items() if 1 in (p.rows, p.columns))
    # The loss' chunks are filled up.
    assert whole - vectors <= 3 * 2 * (dense + attention + chunk * width * size)
    assert Product(rows * heads, target, width // heads, target, "float32", "float32") in found


def test_products_are_multiplied() -> None:
    product = Product(3, 4, 5, 6, "float32", "float32")
    assert product.operations == 2 * 3 * 4 * 5 * 6
    products = Products(DataParallel(1))
    assert products.run({product: 2}) > 0  # type: ignore[arg-type]
    (program,) = products._compiled.values()
    found = np.asarray(program())
    assert found.shape == (3, 4, 6)
    random = np.random.default_rng(0)
    left, right = (random.standard_normal(s, np.float32) for s in ((3, 4, 5), (3, 5, 6)))
    np.testing.assert_allclose(found, left @ right, rtol=0, atol=1e-5)


def test_steps_stand_for_the_epoch() -> None:
    lengths = np.repeat([4, 8, 16], [64, 32, 32])
    plan = BatchPlan(lengths, lengths, batch_tokens=64, shapes=3)
    # 4 batches of 16 rows of 4, 4 of 8 of 8, 8 of 4 of 16.
    shapes = [plan.shapes[plan.shape_of(step)][0] for step in representative_steps(plan, 4)]
    assert shapes == [4, 8, 16, 16]
    assert len(set(representative_steps(plan, 16))) == 16


def test_numbers_that_cannot_be(capsys, monkeypatch) -> None:
    name = "XLA_PYTHON_CLIENT_PREALLOCATE"
    monkeypatch.setenv(name, "")
    monkeypatch.delenv(name)
    with pytest.raises(ValueError, match="steps=0"):
        bench_train(steps=0)
    with pytest.raises(ValueError, match="joeynmt is not installed"):
        bench_train(peers=["joeynmt"])
    assert main(["bench", "train", "--repeats", "0"]) == 2
    assert "repeats=0" in capsys.readouterr().err
    assert os.environ[name] == "false"  # a GPU's memory is for peers too


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("model.norm=post", "would hold for our side alone"),
        ("loss.label_smoothing=0", "would hold for our side alone"),
        ("training.accumulation=2", "would hold for our side alone"),
        ("model.decoder_layers=2", "encoder_layers=1 and model.decoder_layers=2"),
    ],
)
def test_what_peers_are_not_told_cannot_be_set(setting: str, words: str, capsys) -> None:
    assert main(["bench", "train", "--size", "tiny", "--set", setting]) == 2
    assert words in capsys.readouterr().err
