"""Predicted scaling, by hand."""

import importlib.util
import json
from importlib.machinery import SourceFileLoader
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nmt_ls.bench.scale.prediction import MACHINES, all_reduce_seconds, assumed_rate, predict

SCRIPT = Path(__file__).resolve().parents[1] / "scripts" / "predict_scaling"
CONFIG = Path(__file__).resolve().parents[1] / "configs" / "multi30k_en_de_cpu.yaml"


def script():
    loader = SourceFileLoader("predict_scaling", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    loader.exec_module(module)
    return module


def test_a_ring_by_hand() -> None:
    assert all_reduce_seconds(100, 1, 7) == 0
    # Four devices: 2 · 3/4 of 8 bytes at 2 bytes/s.
    assert all_reduce_seconds(8, 4, 2) == 6


def test_a_step_by_hand() -> None:
    found = predict(rate=10, tokens=50, gradient_bytes=8, devices=4, link=2)
    assert found.compute_seconds == 5
    assert found.all_reduce_seconds == 6
    assert found.fastest == pytest.approx(4 * 50 / 6)
    assert found.slowest == pytest.approx(4 * 50 / 11)
    assert found.efficiency == pytest.approx(5 / 11)


def test_a_rate_by_hand() -> None:
    # Half of 120 operations a second, 6 · 2 for a token.
    assert assumed_rate(0.5, 120, 2) == 5
    with pytest.raises(ValueError, match="utilisation=2"):
        assumed_rate(2, 1, 1)


positive = st.floats(1e-3, 1e9)


@given(positive, positive, positive, st.integers(1, 512), positive)
def test_bounds(rate, tokens, size, devices, link) -> None:
    found = predict(rate, tokens, size, devices, link)
    assert found.slowest <= found.fastest * (1 + 1e-9)
    assert found.fastest <= devices * rate * (1 + 1e-9)
    assert found.slowest == pytest.approx(found.efficiency * devices * rate)
    # Never less than half: the sum of two is at most twice the larger.
    assert found.slowest >= found.fastest / 2 * (1 - 1e-9)


@pytest.mark.parametrize("name", ["rate", "tokens", "gradient_bytes", "devices", "link"])
def test_numbers_that_cannot_be(name: str) -> None:
    good = {"rate": 1, "tokens": 1, "gradient_bytes": 1, "devices": 1, "link": 1}
    with pytest.raises(ValueError, match=f"{name}=0"):
        predict(**{**good, name: 0})


def test_machines_are_8_and_64_devices() -> None:
    assert {name: m.devices for name, m in MACHINES.items()} == {"8xH100": 8, "v5e-64": 64}


def test_the_script_prints_a_prediction(tmp_path, monkeypatch, capsys) -> None:
    output = tmp_path / "found.json"
    options = ["--tokens-per-second", "2400", "--device-tokens", "1800", "--output", str(output)]
    arguments = [str(CONFIG), *options, "--devices", "8", "--link", "1.25"]
    monkeypatch.setattr("sys.argv", ["predict_scaling", *arguments])
    script().main()
    (row,) = json.loads(output.read_text())["rows"]
    parameters = json.loads(output.read_text())["parameters"]
    assert 5_000_000 < parameters < 6_000_000
    assert row["compute_seconds"] == 0.75
    assert row["all_reduce_seconds"] == pytest.approx(2 * 7 / 8 * 4 * parameters / 1.25e9)
    text = capsys.readouterr().out
    assert "A prediction, not a measurement" in text
    assert "measured" in text


def test_an_assumed_rate_is_called_one(monkeypatch, capsys) -> None:
    arguments = [str(CONFIG), "--utilisation", "0.25", "--device-tokens", "4000"]
    monkeypatch.setattr("sys.argv", ["predict_scaling", *arguments])
    script().main()
    text = capsys.readouterr().out
    assert "assumed: 0.25 of peak" in text
    assert "8xH100" in text and "v5e-64" in text
