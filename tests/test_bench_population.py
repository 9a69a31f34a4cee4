"""The benchmark of populations at tiny size: what it reports, not how fast it is."""

import json

import pytest

from nmt_ls.bench.population import ALONE, MAP, VMAP, bench_population, describe
from nmt_ls.cli import main


@pytest.fixture(scope="module")
def result() -> dict:
    return bench_population(members=3, width=8, layers=1, vocab_size=20, batch_tokens=64, repeats=2)


def test_every_way_is_measured(result: dict) -> None:
    json.dumps(result)
    assert [way["name"] for way in result["ways"]] == [ALONE, MAP, VMAP]
    for way in result["ways"]:
        assert len(way["repeats"]) == 2
        assert 0 < min(way["repeats"]) <= way["seconds"] <= max(way["repeats"])
        assert way["first_seconds"] > way["seconds"] / 3
    assert result["chosen"] == MAP
    seconds = {way["name"]: way["seconds"] for way in result["ways"]}
    first = {way["name"]: way["first_seconds"] for way in result["ways"]}
    step, compilation = (r["ratio"] for r in result["ratios"])
    assert step == seconds[MAP] / seconds[ALONE]
    assert compilation == first[MAP] / (3 * first[ALONE])


def test_the_description_names_machine_and_figures(result: dict) -> None:
    text = describe(result)
    assert result["machine"]["processor"] in text
    assert "3 runs: width 8, 1 + 1 layers, V = 20, 64 target positions" in text
    assert f"{MAP} — chosen here" in text


def test_sizes_that_cannot_be(capsys) -> None:
    for name in ("members", "repeats", "batch_tokens"):
        with pytest.raises(ValueError, match=f"{name}=0"):
            bench_population(**{name: 0})
    with pytest.raises(ValueError, match="batch_tokens=31"):
        bench_population(batch_tokens=31)
    assert main(["bench", "population", "--members", "0"]) == 2
    assert "members=0" in capsys.readouterr().err
