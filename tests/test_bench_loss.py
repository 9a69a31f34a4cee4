"""The benchmark of the loss at tiny size: what it reports, not how fast it is."""

import json

import pytest

from nmt_ls.bench.loss import PRODUCTS, WANTED, bench_loss, describe
from nmt_ls.cli import main


@pytest.fixture(scope="module")
def result() -> dict:
    return bench_loss(rows=6, width=4, vocab_size=11, repeats=2, peers=False)


def test_every_way_is_measured(result: dict) -> None:
    json.dumps(result)
    names = [way["name"] for way in result["ways"]]
    assert len(set(names)) == len(names)
    for way in result["ways"]:
        assert len(way["repeats"]) == 2
        assert min(way["repeats"]) <= way["seconds"] <= max(way["repeats"])
        assert way["temporary_bytes"] is not None
    assert PRODUCTS in names
    seconds = {way["name"]: way["seconds"] for way in result["ways"]}
    for found in result["ratios"]:
        assert found["ratio"] == seconds[found["what"]] / seconds[found["beside"]]
    assert {(r["what"], r["beside"]) for r in result["ratios"]} == {
        (what, beside) for what, beside, _ in WANTED if beside in names
    }


def test_the_description_names_machine_and_figures(result: dict) -> None:
    text = describe(result)
    assert result["machine"]["processor"] in text
    assert f"jax {result['versions']['jax']}" in text
    assert "N = 6, D = 4, V = 11, float32" in text
    for way in result["ways"]:
        assert way["name"] in text
    long = describe({**result, "long": {"rss_anon_bytes": 1_500_000_000, "seconds": 7.0}})
    assert "1.50 GB" in long


def test_sizes_that_cannot_be(capsys) -> None:
    with pytest.raises(ValueError, match="rows=0"):
        bench_loss(rows=0)
    assert main(["bench", "loss", "--repeats", "0"]) == 2
    assert "repeats=0" in capsys.readouterr().err
