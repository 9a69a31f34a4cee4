"""`nmt-ls bench data` at tiny size: the table is what it says, and the numbers add up."""

import json

import numpy as np
import pyarrow as pa
import pytest

from nmt_ls.bench import data
from nmt_ls.bench.data import CORPORA, bench_data, describe
from nmt_ls.bench.machine import PeakMemory, rss_anon


@pytest.fixture(scope="module")
def result():
    return bench_data(pairs=3_000, steps=20, batch_tokens=512, seed=3)


def test_the_result_is_json_and_complete(result):
    assert json.loads(json.dumps(result)) == result
    assert result["settings"] == {"pairs": 3_000, "steps": 20, "batch_tokens": 512, "seed": 3}
    assert [corpus["name"] for corpus in result["corpora"]] == [c.name for c in CORPORA]
    for corpus, lengths in zip(result["corpora"], CORPORA, strict=True):
        assert 0.5 < corpus["real_share"] <= 1
        assert corpus["pairs"] * 0.8 * lengths.median < corpus["target_tokens"]
        assert corpus["target_tokens"] < corpus["pairs"] * lengths.longest
        assert corpus["plan_seconds"] > 0
        assert len(corpus["repeats"]) == data.REPEATS


def test_the_rate_is_the_median_of_the_repeats(result):
    for corpus in result["corpora"]:
        for name in ("batches_per_second", "target_tokens_per_second"):
            values = [stretch[name] for stretch in corpus["repeats"]]
            assert corpus[name] == np.median(values) > 0
        # A batch has at most 512 target positions.
        assert corpus["target_tokens_per_second"] < 512 * max(
            stretch["batches_per_second"] for stretch in corpus["repeats"]
        )


def test_the_description_shows_rates_machine_and_versions(result):
    text = describe(result)
    for corpus in result["corpora"]:
        assert corpus["name"] in text
        assert f"{corpus['target_tokens_per_second']:,.0f}" in text
    assert result["machine"]["processor"] in text
    assert f"numpy {np.__version__}" in text
    assert f"pyarrow {pa.__version__}" in text
    assert result["date"] in text


def test_off_linux_memory_is_unknown(result):
    corpora = [{**corpus, "rss_anon_bytes": None} for corpus in result["corpora"]]
    assert "unknown" in describe({**result, "corpora": corpora})


def test_the_tables_are_drawn_from_the_seed():
    first, again, other = (
        pa.concat_tables(data._tables(CORPORA[0], 200, seed)) for seed in (1, 1, 2)
    )
    assert first.equals(again)
    assert not first.equals(other)
    for side in ("source_ids", "target_ids"):
        lengths = np.diff(first[side].chunk(0).offsets.to_numpy())
        assert len(lengths) == 200
        assert lengths.min() >= 2
        assert lengths.max() <= CORPORA[0].longest
        assert first[side].chunk(0).values.to_numpy().min() >= 4  # not a special piece


def test_tables_are_made_in_parts(monkeypatch):
    monkeypatch.setattr(data, "ROWS", 64)
    assert [table.num_rows for table in data._tables(CORPORA[0], 150, 0)] == [64, 64, 22]


@pytest.mark.skipif(rss_anon() is None, reason="this system has no RssAnon")
def test_peak_memory_sees_what_was_held_for_a_while():
    with PeakMemory() as memory:
        held = np.ones(25_000_000)
        memory._done.wait(0.1)
        del held
    assert memory.peak >= memory.before + 150_000_000


def test_impossible_sizes_are_refused():
    with pytest.raises(ValueError, match="pairs=0"):
        bench_data(pairs=0)
    with pytest.raises(ValueError, match="steps=1"):
        bench_data(pairs=10, steps=1)
