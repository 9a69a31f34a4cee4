"""CTranslate2, where it is installed: the same scores and the same translations."""

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_interchange_marian import FIXTURES, copied, edit, imported, native_run
from test_subwords import ENGLISH, GERMAN

from nmt_ls.cli import main
from nmt_ls.decoding.scoring import score_tokens
from nmt_ls.decoding.translator import Translator
from nmt_ls.interchange.ctranslate import export_ctranslate2
from nmt_ls.interchange.marian import write_run
from nmt_ls.training.runs import LoadedRun, load_run

ctranslate2 = pytest.importorskip("ctranslate2")

VARIANTS: dict[str, dict[str, Any]] = {
    "pre, relu, all tied": {},
    "post, learned, gelu, decoder tied": {
        "norm": "post", "positions": "learned", "activation": "gelu",
        "tied_embeddings": "decoder", "norm_epsilon": 0.1, "encoder_layers": 2,
    },
    "pre, swiglu, untied, softcap, bfloat16": {
        "activation": "swiglu", "tied_embeddings": "none", "logit_softcap": 2.0,
        "compute": "bfloat16",
    },
    "post, paper's sinusoids, gelu_exact, bias": {
        "norm": "post", "positions": "sinusoidal_paper", "activation": "gelu_exact",
        "output_bias": True, "scale_embeddings": False,
    },
    "words": {"pretokenized": True, "activation": "swish"},
}  # fmt: skip
SOURCES = [" ".join(text.split()[:3]) for text in ENGLISH[:24]]
TARGETS = [" ".join(text.split()[:3]) for text in GERMAN[:24]]


def inclined_to_end(run: LoadedRun) -> dict[str, np.ndarray]:
    """The parameters with a greater logit of the end, and hardly any of padding and start.

    Random models hardly ever stop otherwise; and CTranslate2 allows the two, which we never do.
    """
    params, model, subwords = dict(run.params), run.config.model, run.subwords
    if model.tied_embeddings == "none":
        bias = params["output.bias"].copy()
        bias[subwords.eos] += 1.5
        bias[[subwords.pad, subwords.bos]] -= 20
        return {**params, "output.bias": bias}
    # All hidden states get 10 in the first dimension, which means the end and not the others.
    last = f"decoder.{model.decoder_layers - 1}.norms.2"
    norm = "decoder_norm" if model.norm == "pre" else last
    offset, table = (params[k].copy() for k in (f"{norm}.bias", "target_embedding.table"))
    offset[0] += 10
    table[:, 0] = 0
    table[subwords.eos, 0] = 0.1 if model.norm == "pre" else 0.3
    table[[subwords.pad, subwords.bos], 0] = -2
    return {**params, f"{norm}.bias": offset, "target_embedding.table": table}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedRun]:
    base = tmp_path_factory.mktemp("runs")
    found = {
        name: load_run(native_run(base / f"before-{i}", **settings))
        for i, (name, settings) in enumerate(VARIANTS.items())
    }
    found["imported"] = imported(FIXTURES / "opus", base / "opus")
    for i, (name, run) in enumerate(found.items()):
        folder = base / f"run-{i}"
        folder.mkdir()
        write_run(folder, run.config, run.subwords, inclined_to_end(run))
        found[name] = load_run(folder)
    return found


def exported(run: LoadedRun, output: Path, *more: str) -> Any:
    arguments = ["--to", "ctranslate2", "--output", str(output), *more]
    assert main(["export", str(run.run_dir), *arguments]) == 0
    return ctranslate2.Translator(str(output), compute_type="default", intra_threads=1)


def pieces_of(run: LoadedRun, side: str, texts: list[str]) -> list[list[str]]:
    """Tokens as CTranslate2 knows them, without the end."""
    encode = run.subwords.encode_source if side == "source" else run.subwords.encode_target
    rows = [[run.subwords.piece(side, i) for i in ids[:-1]] for ids in encode(texts)]
    if run.subwords.pretokenized:
        return [[piece.removeprefix("▁") for piece in row] for row in rows]
    return rows


def their_log_probs(translator: Any, run: LoadedRun) -> list[list[float]]:
    scores = translator.score_batch(
        pieces_of(run, "source", SOURCES), pieces_of(run, "target", TARGETS)
    )
    return [score.log_probs for score in scores]


def our_log_probs(run: LoadedRun) -> list[np.ndarray]:
    model = dataclasses.replace(run.config.model, compute="float32")
    found = score_tokens(
        model, run.subwords, run.params, run.subwords.encode_source(SOURCES),
        run.subwords.encode_target(TARGETS),
    )  # fmt: skip
    return [-one.nll for one in found]


@pytest.mark.parametrize("name", [*VARIANTS, "imported"])
def test_scores(name: str, runs: dict[str, LoadedRun], tmp_path: Path) -> None:
    run = runs[name]
    translator = exported(run, tmp_path / "model")
    for theirs, ours in zip(their_log_probs(translator, run), our_log_probs(run), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", ["pre, relu, all tied", "imported"])
def test_translations(name: str, runs: dict[str, LoadedRun], tmp_path: Path) -> None:
    run = runs[name]
    translator = exported(run, tmp_path / "model")
    config = dataclasses.replace(
        run.config.decoding, beam=5, stopping="first_k", max_length_ratio=0.0, max_length_extra=30
    )
    found = Translator.of([run], config).translate(SOURCES)
    theirs = translator.translate_batch(
        pieces_of(run, "source", SOURCES), beam_size=5, length_penalty=1.0, return_scores=True,
        max_decoding_length=30, return_end_token=True,
        min_decoding_length=0,  # 1 is its default: no empty translation
    )  # fmt: skip
    compared = 0
    for ours, result in zip(found, theirs, strict=True):
        # What never ended is cut off here and ended there.
        if len(ours.tokens) >= 30 or len(result.hypotheses[0]) >= 30:
            continue
        pieces = [run.subwords.piece("target", i) for i in ours.tokens]
        assert pieces == result.hypotheses[0]
        assert abs(ours.score - result.scores[0]) < 1e-3
        compared += len(pieces) > 1
    assert compared >= 6


def test_int8(runs: dict[str, LoadedRun], tmp_path: Path) -> None:
    run = runs["pre, relu, all tied"]
    exact = exported(run, tmp_path / "float32")
    small = exported(run, tmp_path / "int8", "--quantization", "int8")
    sizes = [(tmp_path / n / "model.bin").stat().st_size for n in ("float32", "int8")]
    positions = 2048 * 16 * 4  # stay float32
    assert sizes[1] - positions < 0.6 * (sizes[0] - positions)
    exact_scores, small_scores = (
        np.concatenate(their_log_probs(model, run)) for model in (exact, small)
    )
    assert 0 < np.abs(exact_scores - small_scores).mean() < 0.05


@pytest.mark.parametrize("name", ["pre, relu, all tied", "post, learned, gelu, decoder tied"])
def test_the_run_stays_as_it_was(name: str, runs: dict[str, LoadedRun], tmp_path: Path) -> None:
    run = load_run(runs[name].run_dir)
    export_ctranslate2(run, tmp_path / "int8", "int8")
    for key, value in runs[name].params.items():
        np.testing.assert_array_equal(run.params[key], value, err_msg=key)


def test_bfloat16_needs_torch(
    runs: dict[str, LoadedRun], tmp_path: Path, monkeypatch, capsys
) -> None:
    monkeypatch.setattr("nmt_ls.interchange.ctranslate.find_spec", lambda name: None)
    arguments = ["export", str(runs["words"].run_dir), "--to", "ctranslate2"]
    arguments += ["--output", str(tmp_path / "none"), "--quantization"]
    for kind in ("bfloat16", "int8_bfloat16"):
        assert main([*arguments, kind]) == 2
        assert f"--quantization {kind}: ctranslate2 makes bfloat16 with torch" in (
            capsys.readouterr().err
        )
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("name", ["pre, relu, all tied", "words", "imported"])
def test_the_three_lines_of_its_readme(
    name: str, runs: dict[str, LoadedRun], tmp_path: Path
) -> None:
    exported(runs[name], tmp_path / "served")
    text = (tmp_path / "served" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code.splitlines()) == 3
    # 2 · 512 + 20 tokens, one of which is the end; nothing is cut.
    assert "max_input_length=0, max_decoding_length=1043" in code
    never = "suppress_sequences=[['<pad>'], ['<s>']]"
    assert (never in code) is (name != "imported"), "an imported model cannot say them"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    (translation,) = eval(done.stdout)  # a list of one string
    assert isinstance(translation, str)
    assert ('[[">>de<<", *source.encode(' in code) is (name == "imported")
    if name == "imported":
        config = dataclasses.replace(runs[name].config.decoding, stopping="first_k")
        (ours,) = Translator.of([runs[name]], config).translate([">>de<<A sentence."])
        assert translation == ours.text and len(translation.split()) > 1


@pytest.mark.parametrize("name", ["opus", "untied"])
def test_a_banned_padding_is_never_said(name: str, tmp_path: Path) -> None:
    """Zeros for the padding, as in every converted model, are no logit that takes part."""
    folder = copied(name, tmp_path / "given")
    tensors = load_file(folder / "model.safetensors")
    tensors["final_logits_bias"][0] -= 30  # of all others
    for key in {"opus": ["model.shared.weight"], "untied": ["lm_head.weight"]}[name]:
        tensors[key][-1] = 0
    tensors["final_logits_bias"][0, -1] = 0
    save_file(tensors, folder / "model.safetensors")
    pad = len(tensors["final_logits_bias"][0]) - 1
    edit(folder / "config.json", bad_words_ids=[[pad]])
    run = imported(folder, tmp_path / "run")
    translator = exported(run, tmp_path / "model")
    found = translator.translate_batch(pieces_of(run, "source", SOURCES), max_decoding_length=9)
    assert not any("<pad>" in one.hypotheses[0] for one in found)
    for theirs, ours in zip(their_log_probs(translator, run), our_log_probs(run), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)
    assert np.mean(np.concatenate(our_log_probs(run))) > -15, "normalised without the padding"


def test_two_vocabularies(tmp_path: Path) -> None:
    run = imported(FIXTURES / "untied", tmp_path / "run")
    translator = exported(run, tmp_path / "model")
    names = {p.name for p in (tmp_path / "model").iterdir()}
    assert {"source_vocabulary.json", "target_vocabulary.json", "source.spm"} <= names
    for theirs, ours in zip(their_log_probs(translator, run), our_log_probs(run), strict=True):
        np.testing.assert_allclose(theirs, ours, rtol=0, atol=1e-4)
