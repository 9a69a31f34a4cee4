"""The benchmark of decoding at tiny size: what it reports, not how fast it is."""

import json
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import jax.numpy as jnp
import pytest

from nmt_ls.bench.decode import OURS, bench_decode, describe
from nmt_ls.bench.decoding.lines import describe_lines, measure_lines
from nmt_ls.bench.decoding.model import TINY, make_problem
from nmt_ls.bench.decoding.parts import HOST_PARTS, STEP_PARTS, moved
from nmt_ls.bench.decoding.peers import (
    CTRANSLATE2,
    HUGGING_FACE,
    PeerTask,
    PeerWorker,
    installed,
    packages_of,
)
from nmt_ls.bench.machine import PeerFailed, alternate
from nmt_ls.cli import main
from nmt_ls.model.cache import Cache

SIZES = {"beam": 2, "batch_sentences": 8, "tokens": 5, "model": TINY, "vocab_size": 300}


@pytest.fixture(scope="module")
def result() -> dict:
    return bench_decode(sentences=8, repeats=2, peers=False, **SIZES)


def test_all_outputs_have_the_length_asked_for() -> None:
    problem = make_problem(12, **SIZES)
    assert len(problem.sentences) == 12
    lengths = [len(ids) for ids in problem.subwords.encode_source(problem.sentences)]
    assert min(lengths) >= 3
    assert max(lengths) <= 6
    found = problem.translator().translate(problem.sentences)
    assert [len(one.tokens) for one in found] == [5] * 12


def test_sides_and_parts_are_measured(result: dict) -> None:
    json.dumps(result)
    (ours,) = result["sides"]
    assert ours["name"] == OURS
    assert ours["sentences_per_second"] == 8 / median(ours["repeats"])
    parts = {part["name"]: part for part in result["parts"]}
    assert {*STEP_PARTS, *HOST_PARTS} <= parts.keys()
    for name, part in parts.items():
        assert part["seconds"] > 0
        assert part["times"] == (5 if name.startswith("step:") else 1)
        whole = part["seconds"] * part["times"]
        assert part["share"] == pytest.approx(whole / result["batch_seconds"])


def test_the_description_names_machine_and_figures(result: dict) -> None:
    beside = {
        **result,
        "sides": [
            *result["sides"],
            {"name": CTRANSLATE2, "device": "cpu", "sentences_per_second": 12.5},
        ],
        "ratios": [{"beside": CTRANSLATE2, "ratio": 1.25, "wanted": 1.0}],
        "left_out": {"OTHER": "it has no such type"},
    }
    text = describe(beside)
    assert "12.5" in text
    assert "1.25" in text
    assert "left out: OTHER: it has no such type" in text
    assert result["machine"]["processor"] in text
    for part in result["parts"]:
        assert part["name"] in text


def test_memory_over_lines(monkeypatch) -> None:
    monkeypatch.setattr("nmt_ls.decoding.files._BLOCK", 64)
    found = measure_lines(150, beam=1, batch_sentences=64)
    assert [block[0] for block in found["blocks"]] == [64, 128, 150]
    assert len(found["rates"]) == 2
    assert len(found["fastest"]) == 2
    assert "150 lines" in describe_lines(found)
    unknown = describe_lines({**found, "bytes_per_line": None})
    assert "unknown" in unknown


@pytest.mark.skipif(find_spec("ctranslate2") is None, reason="ctranslate2 is not installed")
def test_a_peer_translates() -> None:
    assert CTRANSLATE2 in installed()
    assert packages_of([CTRANSLATE2]) == ("ctranslate2",)
    worker = PeerWorker(CTRANSLATE2, PeerTask([[5, 6, 3], [7, 3]], 50, 1, 16, 2, 32, 2, 8, 4, 3, 0))
    try:
        assert worker.run() > 0
    finally:
        worker.close()


def test_a_peer_that_cannot_run_says_why() -> None:
    # No such folder, or no such package.
    worker = PeerWorker(
        HUGGING_FACE, PeerTask([[7, 3]], 50, 1, 16, 2, 32, 2, 8, 4, 3, 0, folder=Path("nowhere"))
    )
    left_out: dict[str, str] = {}
    try:
        seconds = alternate({"ours": lambda: 1.0, "theirs": worker.run}, 2, left_out)
        assert seconds == {"ours": [1.0, 1.0]}
        assert list(left_out) == ["theirs"] and left_out["theirs"]
        # Its process has ended, and holds no memory while the others go on.
        with pytest.raises(PeerFailed, match="its process ended, status 0"):
            alternate({"theirs": worker.run}, 2)
    finally:
        worker.close()


def test_numbers_that_cannot_be(capsys) -> None:
    with pytest.raises(ValueError, match="beam=0"):
        bench_decode(beam=0)
    assert main(["bench", "decode", "--sentences", "0"]) == 2
    assert "sentences=0" in capsys.readouterr().err


def test_wide_beams_move_keys_and_values() -> None:
    parents = jnp.array([[1, 0]])
    slots = [jnp.arange(8.0).reshape(2, 4)]
    narrow = Cache(slots, jnp.array([[[0, 0], [1, 1]]]))  # type: ignore[arg-type]
    assert moved(narrow, parents).tolist() == [[[1, 1], [0, 0]]]
    wide = Cache(slots, jnp.zeros((2, 1, 2), jnp.int32))  # type: ignore[arg-type]
    assert moved(wide, parents).layers[0].tolist() == [[4, 5, 6, 7], [0, 1, 2, 3]]
