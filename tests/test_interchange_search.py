"""The search of Hugging Face's `generate` and ours, each from the other."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from test_interchange_marian import FIXTURES, copied, edit, exported, imported, native_run

from nmt_ls.config import DecodingConfig
from nmt_ls.config_files import load_resolved, save_config
from nmt_ls.interchange.search import decoding_of, generation_of

FILE = "generation_config.json"
SEARCH: dict[str, Any] = {
    "num_beams": 6, "length_penalty": 0.8, "no_repeat_ngram_size": 3, "min_new_tokens": 2,
}  # fmt: skip


def change_decoding(run_dir: Path, **fields: Any) -> None:
    config = load_resolved(run_dir / "config.yaml")
    decoding = dataclasses.replace(config.decoding, **fields)
    save_config(dataclasses.replace(config, decoding=decoding), run_dir / "config.yaml")


def written(run_dir: Path, output: Path) -> dict[str, Any]:
    exported(run_dir, output)
    return json.loads((output / FILE).read_text())


@pytest.mark.parametrize("file", [FILE, "config.json"])
def test_an_import_searches_as_the_model_says(file: str, tmp_path: Path) -> None:
    folder = copied("opus", tmp_path / "given")
    if file == "config.json":  # as older models have it
        (folder / FILE).unlink()
    edit(folder / file, **SEARCH)
    run = imported(folder, tmp_path / "run")
    assert run.config.decoding == DecodingConfig(
        beam=6, length_penalty="average", length_alpha=0.8, no_repeat_ngram=3, min_length=2
    )
    assert written(run.run_dir, tmp_path / "back").items() >= SEARCH.items()


def test_a_changed_search_goes_along(tmp_path: Path) -> None:
    folder = copied("opus", tmp_path / "given")
    edit(folder / FILE, **SEARCH, early_stopping=True)
    run = imported(folder, tmp_path / "run")
    before = json.loads((folder / FILE).read_text())
    assert written(run.run_dir, tmp_path / "same") == before
    change_decoding(run.run_dir, beam=2, length_penalty="none", no_repeat_ngram=0)
    changed = {"num_beams": 2, "length_penalty": 0.0, "no_repeat_ngram_size": 0}
    assert written(run.run_dir, tmp_path / "changed") == {**before, **changed}


def test_a_run_of_our_own_comes_back_with_its_search(tmp_path: Path) -> None:
    run = native_run(tmp_path / "run", norm="post")
    change_decoding(run, beam=7, length_alpha=0.6, no_repeat_ngram=4, min_length=1)
    exported(run, tmp_path / "out")
    back = imported(tmp_path / "out", tmp_path / "back").config.decoding
    assert generation_of(back) == generation_of(load_resolved(run / "config.yaml").decoding)


@pytest.mark.parametrize(
    "setting",
    [
        {"length_penalty": -1.0},
        {"num_beams": 500},
        {"num_beams": True},
        {"min_new_tokens": "2"},
        {"length_penalty": float("inf")},
        {"no_repeat_ngram_size": 1.5},
    ],
)
def test_what_ours_cannot_have_is_told(
    setting: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ((name, value),) = setting.items()
    assert decoding_of(setting) == (DecodingConfig(), [f"{name}={value}"])
    if value == -1.0:
        folder = copied("opus", tmp_path / "given")
        edit(folder / FILE, **setting)
        run = imported(folder, tmp_path / "run")
        assert "the search here has no length_penalty=-1.0" in capsys.readouterr().err
        assert written(run.run_dir, tmp_path / "back")["length_penalty"] == -1.0


def test_what_is_not_there_is_as_by_default() -> None:
    assert decoding_of({}) == (DecodingConfig(), [])
    assert decoding_of({"num_beams": None, "length_penalty": 1}) == (DecodingConfig(), [])
    settings = json.loads((FIXTURES / "opus" / FILE).read_text())
    assert decoding_of(settings) == (DecodingConfig(beam=4), [])
