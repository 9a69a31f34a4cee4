"""Hugging Face Marian: the same logits, the same bits back, refusals by name.

tests/fixtures/marian was written by transformers (`scripts/make_marian_fixtures`).
"""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_subwords import ENGLISH, GERMAN
from tiny import MODEL, assert_close, random_params

from nmt_ls.cli import main
from nmt_ls.config import Config, CorpusConfig, DataConfig, SubwordsConfig
from nmt_ls.config_files import load_resolved, save_config
from nmt_ls.data.subwords import Subwords
from nmt_ls.interchange.marian import write_run
from nmt_ls.interchange.marian_weights import paper_table
from nmt_ls.model import graph_of, model_of
from nmt_ls.model.layers import sinusoidal_positions
from nmt_ls.training.runs import LoadedRun, load_run

FIXTURES = Path(__file__).parent / "fixtures" / "marian"
MODELS = ("opus", "separate", "untied")


def imported(folder: Path, run_dir: Path) -> LoadedRun:
    assert main(["import", str(folder), "--run-dir", str(run_dir)]) == 0
    return load_run(run_dir)


def exported(run_dir: Path, output: Path) -> dict[str, np.ndarray]:
    assert main(["export", str(run_dir), "--to", "huggingface", "--output", str(output)]) == 0
    return load_file(output / "model.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedRun]:
    base = tmp_path_factory.mktemp("imported")
    return {name: imported(FIXTURES / name, base / name) for name in MODELS}


def logits_of(run: LoadedRun, source: Any, lengths: Any, inputs: Any) -> np.ndarray:
    graph = graph_of(run.config.model, run.subwords.source_size, run.subwords.target_size)

    @jax.jit
    def compute(params):
        model = model_of(graph, params)
        return model.logits(model.decode(model.encode(source, lengths), inputs))

    return np.asarray(compute({k: jax.numpy.asarray(v) for k, v in run.params.items()}))


def without_padding(logits: np.ndarray, run: LoadedRun) -> np.ndarray:
    """The logits of all tokens but the padding: transformers bans it, an import makes it -1e4."""
    return np.delete(logits, run.subwords.pad, axis=-1)


def copied(name: str, folder: Path) -> Path:
    shutil.copytree(FIXTURES / name, folder)
    return folder


def edit(path: Path, **fields: Any) -> None:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **fields}))


# --- the same numbers ------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_transformers(name: str, runs: dict[str, LoadedRun]) -> None:
    expected = load_file(FIXTURES / name / "expected.safetensors")
    found = logits_of(runs[name], expected["source"], expected["lengths"], expected["decoder_ids"])
    assert len(set(expected["lengths"].tolist())) > 2, "padding of several lengths"
    assert_close(found, expected["logits"], 1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_a_round_trip_keeps_every_bit(
    name: str, runs: dict[str, LoadedRun], tmp_path: Path
) -> None:
    found = exported(runs[name].run_dir, tmp_path / "back")
    before = load_file(FIXTURES / name / "model.safetensors")
    assert found.keys() == before.keys()
    for key, value in before.items():
        assert value.tobytes() == found[key].tobytes(), key
    # Tokenizer and configuration too.
    for file in ("source.spm", "target.spm"):
        assert (tmp_path / "back" / file).read_bytes() == (FIXTURES / name / file).read_bytes()
    for file in FIXTURES.joinpath(name).glob("*.json"):
        assert json.loads((tmp_path / "back" / file.name).read_text()) == json.loads(
            file.read_text()
        ), file.name


def test_special_ids_and_settings_of_a_run(runs: dict[str, LoadedRun]) -> None:
    run = runs["opus"]
    subwords, model = run.subwords, run.config.model
    assert subwords.eos == 0 and subwords.unk == 1
    assert subwords.pad == subwords.bos == subwords.target_size - 1
    assert (model.encoder_layers, model.decoder_layers, model.norm) == (2, 1, "post")
    assert (model.activation, model.positions) == ("swish", "sinusoidal_paper")
    assert model.scale_embeddings and model.output_bias and model.norm_epsilon == 1e-5
    assert run.config.decoding.beam == 4
    assert (run.config.data.source_language, run.config.data.target_language) == ("en", "de")
    assert runs["separate"].config.model.tied_embeddings == "decoder"
    assert runs["untied"].config.model.tied_embeddings == "none"


def test_what_tables_of_positions_are(tmp_path: Path) -> None:
    names = ["model.encoder.embed_positions.weight", "model.decoder.embed_positions.weight"]
    theirs = np.asarray(sinusoidal_positions(np.arange(64), 16))
    learned = np.random.default_rng(0).normal(size=(40, 16)).astype(np.float32)
    expected = load_file(FIXTURES / "opus" / "expected.safetensors")
    given = (expected["source"], expected["lengths"], expected["decoder_ids"])
    for kind, table in (
        ("sinusoidal_paper", paper_table(64, 16)),
        ("sinusoidal", theirs),
        ("learned", learned),
    ):
        folder = copied("opus", tmp_path / kind)
        tensors = load_file(folder / "model.safetensors")
        more = dict.fromkeys(names, table)
        save_file({**tensors, **more}, folder / "model.safetensors")
        run = imported(folder, tmp_path / f"{kind}-run")
        assert run.config.model.positions == kind
        back = exported(run.run_dir, tmp_path / f"{kind}-back")
        if kind == "sinusoidal_paper":  # made by MarianMTModel itself
            assert back.keys() == tensors.keys()
            assert_close(logits_of(run, *given), expected["logits"], 1e-5)
        else:
            np.testing.assert_array_equal(back[names[0]], table)
            assert np.abs(logits_of(run, *given) - expected["logits"]).max() > 0.1
    assert run.config.model.max_positions == 40


def test_half_precision_is_widened(tmp_path: Path) -> None:
    folder = copied("opus", tmp_path / "half")
    tensors = load_file(folder / "model.safetensors")
    halves = {k: v.astype(np.float16) for k, v in tensors.items()}
    save_file(halves, folder / "model.safetensors")
    imported(folder, tmp_path / "run")
    back = exported(tmp_path / "run", tmp_path / "back")
    for key, value in halves.items():
        assert back[key].dtype == np.float32
        np.testing.assert_array_equal(back[key], value)


def test_weights_in_several_files_and_tied_ones_twice(tmp_path: Path) -> None:
    folder = copied("opus", tmp_path / "several")
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    tensors["lm_head.weight"] = tensors.pop("model.shared.weight")
    tensors["model.decoder.embed_tokens.weight"] = tensors["lm_head.weight"]
    parts = [dict(list(tensors.items())[:7]), dict(list(tensors.items())[7:])]
    index = {}
    for i, part in enumerate(parts):
        save_file(part, folder / f"part-{i}.safetensors")
        index |= dict.fromkeys(part, f"part-{i}.safetensors")
    index_file = folder / "model.safetensors.index.json"
    index_file.write_text(json.dumps({"weight_map": index}))
    imported(folder, tmp_path / "run")
    back = exported(tmp_path / "run", tmp_path / "back")
    for key, value in load_file(FIXTURES / "opus" / "model.safetensors").items():
        np.testing.assert_array_equal(back[key], value)


# --- refusals ----------------------------------------------------------------------------------


def _tensors(change: Callable[[dict[str, np.ndarray]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return apply


def _config(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder / "config.json", **fields)


def _pickle_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _no_pad(folder: Path) -> None:
    path = folder / "vocab.json"
    path.write_text(path.read_text().replace('"<pad>"', '"<other>"'))


def _strangers(folder: Path) -> None:
    path = folder / "vocab.json"
    pieces = json.loads(path.read_text())
    kept = ("</s>", "<unk>", "<pad>")
    path.write_text(json.dumps({(p if p in kept else f"x{i}"): i for p, i in pieces.items()}))


def _index(weight_map: Any) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        index = {"weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))

    return apply


FC1 = "model.encoder.layers.1.fc1.weight"

REFUSED: dict[str, tuple[Callable[[Path], Any], list[str]]] = {
    "no config": (lambda f: (f / "config.json").unlink(), ["no Hugging Face model", "config.json"]),
    "another model": (_config(model_type="bart"), ["model_type='bart'", "Marian"]),
    "no JSON": (lambda f: (f / "config.json").write_text("{"), ["config.json is no JSON"]),
    "a pickle": (_pickle_only, ["pytorch_model.bin, a pickle", "safetensors"]),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), ["has no model.safetensors"]),
    "torn weights": (
        lambda f: (f / "model.safetensors").write_bytes(b"\x08" * 40),
        ["model.safetensors is damaged"],
    ),
    "a list of files": (_index(["part-0.safetensors"]), ["names no files beside it"]),
    "a file of no name": (_index({"x": 7, "y": "part"}), ["names no files beside it"]),
    "a file elsewhere": (_index({"x": "../part.safetensors"}), ["names no files beside it"]),
    "more ids than memory": (
        _config(vocab_size=10**11, decoder_vocab_size=10**11),
        ["model.shared.weight has shape [142, 16]", "[100000000000, 16]"],
    ),
    "odd added tokens": (
        lambda f: edit(f / "tokenizer_config.json", added_tokens_decoder=[">>quy<<"]),
        ["added_tokens_decoder is no JSON object"],
    ),
    "missing": (_tensors(lambda t: t.pop(FC1)), [f"no tensor {FC1}"]),
    "extra": (
        _tensors(lambda t: t.update({"model.encoder.layers.2.fc1.bias": np.zeros(3)})),
        ["no part of the model", "model.encoder.layers.2.fc1.bias"],
    ),
    "shape": (
        _tensors(lambda t: t.update({FC1: t[FC1][:, :5].copy()})),
        [FC1, "[24, 5]", "[24, 16]"],
    ),
    "untied after all": (
        _tensors(lambda t: t.update({"lm_head.weight": t["model.shared.weight"] + 1})),
        ["lm_head.weight and model.shared.weight differ"],
    ),
    "activation": (_config(activation_function="tanh"), ["activation_function=tanh", "relu"]),
    "heads": (_config(decoder_attention_heads=4), ["decoder_attention_heads=4"]),
    "width": (_config(encoder_attention_heads=3, decoder_attention_heads=3), ["does not divide"]),
    "pre-norm": (_config(normalize_before=True), ["normalize_before=true"]),
    "layers": (_config(encoder_layers="2"), ["encoder_layers='2'"]),
    "half tied": (_config(tie_word_embeddings=False), ["tie_word_embeddings=false"]),
    "padding": (_config(pad_token_id=7, decoder_start_token_id=7), ["pad_token_id=7", "141"]),
    "start": (_config(decoder_start_token_id=500), ["decoder_start_token_id=500"]),
    "no source.spm": (lambda f: (f / "source.spm").unlink(), ["cannot read", "source.spm"]),
    "torn target.spm": (
        lambda f: (f / "target.spm").write_bytes(b"no model"),
        ["target.spm is not a SentencePiece model"],
    ),
    "no <pad>": (_no_pad, ["no <pad>"]),
    "an id beyond": (lambda f: edit(f / "vocab.json", more=142), ["'more' has the id 142", "141"]),
    "an id twice": (lambda f: edit(f / "vocab.json", more=5), ["same id 5"]),
    "an added word": (
        lambda f: (f / "added_tokens.json").write_text('{"covid": 142}'),
        ["added token 'covid'", "only language codes"],
    ),
    "an added code beyond": (
        lambda f: (f / "added_tokens.json").write_text('{">>quy<<": 142}'),
        ["'>>quy<<' has the id 142", "141"],
    ),
    "other pieces": (_strangers, ["pieces of source.spm", "different models"]),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_folder_is_refused_by_name(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    break_it, words = REFUSED[name]
    folder = copied("opus", tmp_path / "given")
    break_it(folder)
    assert main(["import", str(folder), "--run-dir", str(tmp_path / "run")]) == 2
    message = capsys.readouterr().err
    assert len(message.splitlines()) <= 2 and all(word in message for word in words), message
    assert [p.name for p in tmp_path.iterdir()] == ["given"], "nothing half-written"


def test_nothing_is_overwritten(
    runs: dict[str, LoadedRun], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there" / "mine").touch()
    assert main(["import", str(FIXTURES / "opus"), "--run-dir", str(tmp_path / "there")]) == 2
    run = str(runs["opus"].run_dir)
    output = ["--output", str(tmp_path / "there")]
    assert main(["export", run, "--to", "huggingface", *output]) == 2
    assert capsys.readouterr().err.count("is there already") == 2
    assert [p.name for p in (tmp_path / "there").iterdir()] == ["mine"]


def native_run(folder: Path, *, pretokenized: bool = False, **model: Any) -> Path:
    """A run of this package's own: 150 joint pieces, random parameters."""
    subwords = Subwords.train(
        lambda: ENGLISH, lambda: GERMAN, SubwordsConfig(vocab_size=150), pretokenized=pretokenized
    )
    config = Config(
        data=DataConfig(train=CorpusConfig(kind="none"), max_length=32, pretokenized=pretokenized),
        model=dataclasses.replace(MODEL, **model),
    )
    size = subwords.target_size
    folder.mkdir()
    write_run(folder, config, subwords, random_params(config.model, size, size))
    return folder


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ({"norm": "pre"}, "model.norm=pre"),
        ({"norm": "post", "activation": "swiglu"}, "model.activation=swiglu"),
        ({"norm": "post", "logit_softcap": 30.0}, "model.logit_softcap=30"),
        ({"norm": "post", "pretokenized": True}, "data.pretokenized=true"),
    ],
)
def test_what_marian_cannot_express_is_refused(
    model: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = native_run(tmp_path / "run", **model)
    output = str(tmp_path / "out")
    assert main(["export", str(run), "--to", "huggingface", "--output", output]) == 2
    message = capsys.readouterr().err
    assert "Marian cannot express" in message and words in message
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_search_goes_along_as_far_as_it_can(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = native_run(tmp_path / "run", norm="post")
    config = load_resolved(run / "config.yaml")
    for i, (changed, lost) in enumerate(
        [
            ({"length_alpha": 0.6, "no_repeat_ngram": 3, "min_length": 2}, []),
            (
                {"length_penalty": "gnmt", "temperature": 0.5, "unmix": "exact", "groups": 5},
                ["length_penalty=gnmt", "temperature=0.5", "unmix=exact", "groups=5"],
            ),
        ]
    ):
        decoding = dataclasses.replace(config.decoding, **changed)
        save_config(dataclasses.replace(config, decoding=decoding), run / "config.yaml")
        exported(run, tmp_path / str(i))
        written = json.loads((tmp_path / str(i) / "generation_config.json").read_text())
        told = capsys.readouterr().err
        assert ("--to huggingface has no" in told) is bool(lost)
        assert all(f"decoding.{setting}" in told for setting in lost)
        assert written["length_penalty"] == (1.0 if lost else 0.6)
        assert written.get("no_repeat_ngram_size") == changed.get("no_repeat_ngram")
        assert written.get("min_new_tokens") == changed.get("min_length")


@pytest.mark.parametrize(
    ("positions", "found"), [("sinusoidal", 600), ("learned", MODEL.max_positions)]
)
def test_positions_reach_as_far_as_sentences(positions: str, found: int, tmp_path: Path) -> None:
    run = native_run(tmp_path / "run", norm="post", positions=positions)
    config = load_resolved(run / "config.yaml")
    decoding = dataclasses.replace(config.decoding, max_source_length=600)
    save_config(dataclasses.replace(config, decoding=decoding), run / "config.yaml")
    tensors = exported(run, tmp_path / "out")
    assert len(tensors["model.encoder.embed_positions.weight"]) == found
    for file, key in {
        "config.json": "max_position_embeddings",
        "generation_config.json": "max_length",
        "tokenizer_config.json": "model_max_length",
    }.items():
        assert json.loads((tmp_path / "out" / file).read_text())[key] == found


def test_quantization_belongs_to_ctranslate2(
    runs: dict[str, LoadedRun], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = str(runs["opus"].run_dir)
    arguments = ["--to", "huggingface", "--output", str(tmp_path / "o"), "--quantization", "int8"]
    assert main(["export", run, *arguments]) == 2
    assert "ctranslate2" in capsys.readouterr().err
