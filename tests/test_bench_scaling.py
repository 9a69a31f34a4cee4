"""The benchmark of scaling at tiny size: parameters agree, bytes are those of the gradient."""

import json

import pytest

from nmt_ls.bench.scaling import bench_scaling, describe
from nmt_ls.cli import main

SIZES = {"layers": 1, "width": 16, "vocab_size": 60, "rows": 16, "steps": 3}


@pytest.fixture(scope="module")
def result() -> dict:
    return bench_scaling(devices=(1, 8), **SIZES)


def test_eight_devices_train_as_one(result: dict) -> None:
    json.dumps(result)
    one, eight = result["runs"]
    assert (one["devices"], eight["devices"]) == (1, 8)
    assert one["difference"] == 0
    # Sums in another order; exactly equal ones would mean that nothing was split.
    assert 0 < eight["difference"] <= 1e-5
    assert eight["losses"] == pytest.approx(one["losses"], rel=1e-6)
    # The parameters have gone a way that is long beside the difference.
    assert eight["moved"] > 1e-3
    assert eight["difference_of_moved"] < 1e-2


def test_one_all_reduce_sums_the_gradient_once(result: dict) -> None:
    assert result["gradient_bytes"] == 4 * result["parameters"]
    for run in result["runs"]:
        assert run["all_reduces"] == 1
        assert run["others"] == 0
        # Besides the gradient: Σ loss, Σ tokens, Σ nll.
        assert run["bytes"] == result["gradient_bytes"] + 3 * 4


def test_the_description_names_machine_and_figures(result: dict) -> None:
    text = describe(result)
    assert result["machine"]["processor"] in text
    assert f"{result['gradient_bytes']:,} bytes" in text
    assert ": yes;" in text
    far = {**result, "runs": [*result["runs"], {**result["runs"][1], "difference": 0.5}]}
    assert "5.0e-01, asked for ≤ 1e-05: NO" in describe(far)


def test_numbers_that_cannot_be(capsys) -> None:
    with pytest.raises(ValueError, match="steps=0"):
        bench_scaling(steps=0)
    assert main(["bench", "scaling", "--devices", "3"]) == 2
    assert "devices=3" in capsys.readouterr().err
