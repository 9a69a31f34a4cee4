"""A step compiled ahead: for the CPU's own devices, as no other compiler need be installed."""

import dataclasses
import importlib.util
import json
from importlib.machinery import SourceFileLoader
from pathlib import Path

import jax
import pytest
from tiny import MODEL, TRAINING

from nmt_ls.bench.scale import ahead
from nmt_ls.bench.scale.ahead import compile_step, devices_of
from nmt_ls.config import Config, LossConfig
from nmt_ls.errors import UserError

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "compile_ahead"
QUICKSTART = str(SCRIPT.parents[1] / "configs" / "quickstart.yaml")
CONFIG = Config(model=MODEL, training=dataclasses.replace(TRAINING, batch_tokens=160, devices=0))


def test_what_a_step_takes_and_sends() -> None:
    found = compile_step(CONFIG, jax.devices()[:4], 44, length=10)
    assert (found.devices, found.rows) == (4, 4)
    parameters = 44 * 16 + sum(  # the embedding, norms, attention, feed-forward; Adam has two more
        size
        for size, times in [
            (2 * 16, 2 + 3 + 2), (16 * 48 + 32 + 16 * 16 + 16, 2),
            (16 * 16 + 16 + 16 * 32 + 16 + 16 * 16 + 16, 1),
            (16 * 32 + 32 + 32 * 16 + 16, 2),
        ]
        for _ in range(times)
    )  # fmt: skip
    assert found.all_reduced_bytes == 4 * parameters + 3 * 4  # Σ loss, tokens, nll
    assert 0 <= found.state_bytes - 3 * 4 * parameters <= 64  # counters
    assert found.temporary_bytes > 0 and found.kernels_of_cudnn == 0
    batch = 2 * 4 * (4 * 10 + 4)  # ids and lengths of each device's rows
    state_and_batch = found.needed_bytes - found.temporary_bytes
    assert 0 <= state_and_batch - found.state_bytes - batch < 4096  # scalars, tables; no copy


def test_parts_of_a_batch_take_less_memory() -> None:
    training = dataclasses.replace(CONFIG.training, batch_tokens=4000)
    whole, parts = (
        compile_step(
            dataclasses.replace(CONFIG, training=dataclasses.replace(training, accumulation=n)),
            jax.devices()[:1], 44, length=10,
        )
        for n in (1, 8)
    )  # fmt: skip
    assert (whole.devices, whole.rows, parts.rows) == (1, 400, 50)
    assert parts.temporary_bytes < whole.temporary_bytes / 2


@pytest.mark.parametrize(
    ("target", "count", "name"),
    [("v5e", 1, "v5e:1x1"), ("v5e", 8, "v5e:2x4"), ("v5e", 64, "v5e:8x8"), ("h100", 8, "1x1x8")],
)
def test_what_compilers_are_asked_for(target, count, name, monkeypatch) -> None:
    asked = {}

    def described(*_, **given):
        asked.update(given)
        raise RuntimeError("no such\nplugin")

    monkeypatch.setattr(ahead.topologies, "get_topology_desc", described)
    monkeypatch.setattr(ahead.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(UserError, match=f"{count} devices of {target} .*: no such plugin\n.*pip"):
        devices_of(target, count)
    assert name in (asked.get("topology"), asked.get("topology_name"))
    # Who has the package is not told to install it.
    monkeypatch.setattr(ahead.importlib.util, "find_spec", lambda _: "found")
    with pytest.raises(UserError, match="no such plugin$"):
        devices_of(target, count)


@pytest.mark.parametrize("count", [2, 5, 9, 100, 512])
def test_slices_that_there_are_not(count) -> None:
    with pytest.raises(UserError, match=f"^{count} devices of v5e .* 1, 4, 8, 16, 32, .*256$"):
        devices_of("v5e", count)


@pytest.mark.parametrize(
    ("loss", "way_out"),
    [
        (LossConfig(kind="distillation", teacher_run="run"), "kind=label_smoothing .*teacher_run="),
        (LossConfig(graduated="run", graduated_run="run"), "graduated=none .*graduated_run="),
    ],
)
def test_losses_with_a_teacher_are_refused(loss, way_out) -> None:
    with pytest.raises(UserError, match=f"teacher.*\n.*--set loss.{way_out}"):
        compile_step(dataclasses.replace(CONFIG, loss=loss), jax.devices()[:1], 44)


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("RESOURCE_EXHAUSTED: ran out", "1 devices \\(RES.*\n.*accumulation"),
        (
            "UNAVAILABLE: No PTX compilation provider is available.",
            "no ptxas.*\n.*nvidia-cuda-nvcc",
        ),
    ],
)
def test_what_compilers_refuse(said, told, monkeypatch) -> None:
    def refuse(*_, **__):
        raise jax.errors.JaxRuntimeError(said)

    monkeypatch.setattr(jax.stages.Lowered, "compile", refuse)
    with pytest.raises(UserError, match=told):
        compile_step(CONFIG, jax.devices()[:1], 44, length=10)


def test_more_than_a_device_has(script, monkeypatch, capsys) -> None:
    """XLA for GPUs compiles it all the same."""
    found = ahead.Compiled(1, 9, 1.0, 10**9, 200 * 10**9, 201 * 10**9, 0, 0, 0, 0)
    monkeypatch.setattr(script, "devices_of", lambda *_: [])
    monkeypatch.setattr(script, "compile_step", lambda *_, **__: found)
    assert script.main([QUICKSTART, "--target", "h100"]) == 0
    *_, row, _, _ = capsys.readouterr().out.splitlines()
    assert row.split()[4:6] == ["201.00", "NO"]


@pytest.fixture
def script():
    loader = SourceFileLoader("compile_ahead", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def test_wrong_calls(script, monkeypatch, capsys, tmp_path) -> None:
    def none(*_):
        raise UserError("none here")

    monkeypatch.setattr(script, "devices_of", none)
    assert script.main([QUICKSTART, "--target", "h100", "--output", str(tmp_path / "a.json")]) == 2
    assert capsys.readouterr().err == "compile_ahead: none here\n"
    assert not list(tmp_path.iterdir())
    for wrong in (["--devices", "0"], ["--vocab-size", "0"]):
        with pytest.raises(SystemExit, match="2"):
            script.main([QUICKSTART, "--target", "h100", *wrong])


@pytest.mark.parametrize(
    "setting",
    ["data.pretokenized=true", "subwords.model_file=a.model", "training.init_from=run"],
)
def test_a_vocabulary_that_the_configuration_has_not(setting, script, monkeypatch, capsys) -> None:
    monkeypatch.setattr(script, "devices_of", lambda *_: pytest.fail("its size is asked first"))
    assert script.main([QUICKSTART, "--target", "h100", "--set", setting]) == 2
    told = capsys.readouterr().err
    assert told.startswith(f"compile_ahead: with {setting} ") and "--vocab-size" in told


def test_the_table(script, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.setattr(script, "devices_of", lambda _, count: jax.devices()[:count])
    arguments = ["--target", "v5e", "--devices", "2", "--output", str(tmp_path / "a.json")]
    small = ("model.encoder_layers=1", "model.decoder_layers=1", "model.width=16", "model.heads=2")
    for setting in (*small, "training.batch_tokens=100"):
        arguments += ["--set", setting]
    assert script.main([QUICKSTART, *arguments, "--vocab-size", "50"]) == 0
    table = capsys.readouterr().out
    assert "all-reduces" in table and "v5e, nothing run" in table and "fits 16 GB" in table
    found = json.loads((tmp_path / "a.json").read_text())
    assert [(one["devices"], one["fits"]) for one in found["compiled"]] == [(2, True)]
    assert found["settings"]["set"] == [*small, "training.batch_tokens=100"]
