"""How many programs a file of lines of all lengths is compiled to, and that once is enough."""

import dataclasses
import os
import re
import subprocess
import sys

import pytest
import yaml
from test_cli import SETTINGS
from tiny import MODEL, random_params, sentence_pairs, tiny_config, tiny_data

from nmt_ls.cli import main
from nmt_ls.config import DecodingConfig
from nmt_ls.decoding.rows import padded_length
from nmt_ls.decoding.search import search_program
from nmt_ls.decoding.translator import Translator

MOST = 8
"""Shapes of decoding for any file."""


def test_a_file_of_all_lengths_has_few_shapes() -> None:
    longest = DecodingConfig().max_source_length
    assert longest == 512
    assert len({padded_length(n) for n in range(2, longest + 1)}) <= MOST


def test_programs_are_those_of_the_shapes(tmp_path) -> None:
    """Lengths from 2 to over the limit; prefixes of all lengths up to 8."""
    subwords = tiny_data(tiny_config(tmp_path)).subwords
    params = random_params(MODEL, subwords.source_size, subwords.target_size)
    decoding = DecodingConfig(
        beam=2, batch_sentences=8, max_source_length=64, max_length_ratio=0.0, max_length_extra=12
    )
    translator = Translator([MODEL], [params], subwords, decoding)
    search_program.cache_clear()
    found = translator.translate([" ".join(["w01"] * n) for n in range(1, 80)])
    assert all(one.tokens for one in found)
    # One length of output serves all sources here, so that only the shapes of rows differ.
    assert search_program.cache_info().currsize == 1
    before = compilations()
    translator.translate([" ".join(["w02"] * n) for n in range(79, 0, -1)])
    assert compilations() == before, "the same shapes again"
    for length in range(1, 9):
        translator.translate(["w03"], prefix=" ".join(["w04"] * length))
    assert compilations() - before <= 1, "prefixes of up to 8 tokens share a shape"


def compilations() -> int:
    """Programs compiled by this process, found in a cache on disk or not."""
    return _Compilations.count


class _Compilations:
    count = 0

    @staticmethod
    def listen(event: str, _: float, **__: object) -> None:
        _Compilations.count += event == "/jax/core/compile/backend_compile_duration"


@pytest.fixture(autouse=True, scope="module")
def _listening():
    import jax

    jax.monitoring.register_event_duration_secs_listener(_Compilations.listen)


@pytest.fixture
def run_dir(tmp_path):
    for name, count, seed in (("train", 40, 0), ("valid", 4, 1)):
        texts = zip(*sentence_pairs(count, seed), strict=True)
        for language, text in zip(("en", "de"), texts, strict=True):
            (tmp_path / f"{name}.{language}").write_text("\n".join(text) + "\n")
    training = {**SETTINGS["training"], "max_steps": 2, "validate_every": 0, "average_last": 0}
    data = {**SETTINGS["data"], "root": str(tmp_path)}
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump({**SETTINGS, "data": data, "training": training}))
    assert main(["train", str(config), "--run-dir", str(tmp_path / "run")]) == 0
    return tmp_path / "run"


def test_a_second_process_compiles_nothing(run_dir, tmp_path) -> None:
    lengths = (1, 14, 15, 16, 31, 32, 63, 70)
    source = tmp_path / "source.en"
    source.write_text("".join(" ".join(["w01"] * n) + "\n" for n in lengths))
    call = [
        sys.executable, "-m", "nmt_ls.cli", "translate", str(run_dir), "--input", str(source),
        "--beam", "2", "--set", "decoding.max_length_ratio=0.01",
        "--set", "decoding.max_length_extra=4", "--set", "decoding.batch_sentences=8",
        "--set", "decoding.max_source_length=64",
    ]  # fmt: skip
    environment = {**os.environ, "NMT_LS_CACHE": str(tmp_path / "cache")}
    counts, outputs = [], []
    for _ in range(2):
        done = subprocess.run(call, capture_output=True, text=True, env=environment, check=True)
        counts.append(int(re.search(r"(\d+) programs compiled", done.stderr)[1]))
        outputs.append(done.stdout)
    assert counts[0] == 3  # sources of 16, 32 and 64
    assert counts[1] == 0
    assert outputs[0] == outputs[1]
    assert len(outputs[0].splitlines()) == len(lengths)


def test_a_beam_of_200(tmp_path) -> None:
    subwords = tiny_data(tiny_config(tmp_path)).subwords
    params = random_params(MODEL, subwords.source_size, subwords.target_size)
    decoding = DecodingConfig(
        beam=200, batch_sentences=8, max_length_ratio=1.0, max_length_extra=4, length_penalty="none"
    )
    wide = Translator([MODEL], [params], subwords, decoding)
    narrow = Translator([MODEL], [params], subwords, dataclasses.replace(decoding, beam=4))
    text = ["w01 w02 w03", "w07"]
    for best, good in zip(wide.translate(text, n_best=200), narrow.translate(text), strict=True):
        assert len({one.tokens for one in best.n_best}) == len(best.n_best) == 200
        scores = [one.score for one in best.n_best]
        assert scores == sorted(scores, reverse=True)
        # Without a penalty on length, what the narrow beam finds is among 200 hypotheses.
        assert best.score >= good.score - 1e-5
