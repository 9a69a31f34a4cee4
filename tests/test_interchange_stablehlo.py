"""Parameters as safetensors, and programs as StableHLO that run without this package."""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file
from test_interchange_marian import logits_of, native_run
from tiny import MODEL, assert_close, random_params

from nmt_ls.cli import main
from nmt_ls.config_files import load_resolved
from nmt_ls.data.subwords import Subwords
from nmt_ls.decoding.translator import Translator
from nmt_ls.training.runs import LoadedRun, load_run

PAGE = Path(__file__).parents[1] / "docs" / "interchange.md"


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    folder = tmp_path_factory.mktemp("runs") / "run"
    return load_run(native_run(folder, decoder_layers=2, norm="post"))


def exported(run: LoadedRun, to: str, output: Path) -> Path:
    assert main(["export", str(run.run_dir), "--to", to, "--output", str(output)]) == 0
    return output


def test_parameters_by_name(run: LoadedRun, tmp_path: Path) -> None:
    folder = exported(run, "safetensors", tmp_path / "out")
    found = load_file(folder / "model.safetensors")
    assert found.keys() == run.params.keys()
    for name, value in run.params.items():
        np.testing.assert_array_equal(found[name], value)
    with safe_open(folder / "model.safetensors", framework="np") as file:
        metadata = file.metadata()
    assert json.loads(metadata["model"])["norm"] == "post"
    assert json.loads(metadata["vocabulary"]) == {
        "source": 150, "target": 150, "pad": 0, "unk": 1, "bos": 2, "eos": 3
    }  # fmt: skip
    assert metadata["checkpoint"] == "0"
    assert load_resolved(folder / "config.yaml") == run.config
    assert Subwords.load(folder).fingerprint == run.subwords.fingerprint


@pytest.mark.parametrize(
    "model",
    [
        {},
        {"norm": "post", "positions": "learned", "tied_embeddings": "none"},
        {"tied_embeddings": "decoder", "output_bias": True, "activation": "swiglu"},
    ],
)
def test_the_table_of_names_is_complete(model: dict[str, Any]) -> None:
    """Each parameter has its shape in the table of docs/interchange.md."""
    rows = re.findall(r"^\| `([\w.*]+)` \| \[([^\]]*)\] \|", PAGE.read_text("utf-8"), re.MULTILINE)
    assert len(rows) > 20
    config = dataclasses.replace(MODEL, **model)
    sizes = {"D": 16, "F": 32, "V": 44, "T": 32, "S": 44}
    if config.activation == "swiglu":
        rows = [(name, size.replace("F or 2F", "2F")) for name, size in rows]
    rows = [(name, size.replace("F or 2F", "F")) for name, size in rows]
    for name, value in random_params(config, 44, 44).items():
        row = re.sub(r"\.\d+\.", ".*.", name, count=1)
        (size,) = [size for pattern, size in rows if pattern == row]
        expected = [
            int(part[:-1] or 1) * sizes[part[-1]] for part in size.replace(" ", "").split(",")
        ]
        assert list(value.shape) == expected, name


def test_programs_run_without_this_package(run: LoadedRun, tmp_path: Path) -> None:
    pytest.importorskip("flatbuffers")
    folder = exported(run, "stablehlo", tmp_path / "out")
    params = load_file(folder / "model.safetensors")
    encode, step = (
        jax.export.deserialize(bytearray((folder / f"{name}.jax_export").read_bytes()))
        for name in ("encode", "decode_step")
    )
    assert encode.platforms == ("cpu", "cuda", "tpu")
    generator = np.random.default_rng(0)
    for batch, longest, hypotheses in ((2, 7, 1), (3, 4, 2)):
        source = generator.integers(4, 150, size=(batch, longest), dtype=np.int32)
        lengths = np.array([longest, 2, 3][:batch], np.int32)
        inputs = generator.integers(4, 150, size=(batch, hypotheses, 5), dtype=np.int32)
        inputs[:, :, 0] = 2
        layers = encode.call(params, source, lengths)
        rows = batch * hypotheses
        cache = [(jnp.zeros((rows, 2, 8, 6)), jnp.zeros((rows, 2, 6, 8)))] * 2
        steps = []
        for position in range(5):
            logits, cache = step.call(
                params, layers, lengths, inputs[:, :, position], np.int32(position), cache
            )
            steps.append(logits)
        for k in range(hypotheses):
            expected = logits_of(run, source, lengths, inputs[:, k])
            assert_close(np.stack(steps, axis=2)[:, k], expected, 1e-5)


def test_the_search_of_its_readme(
    run: LoadedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("flatbuffers")
    folder = exported(run, "stablehlo", tmp_path / "out")
    (code,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {}
    exec(code, names)
    texts = ["The old man", "a garden"]
    ids = run.subwords.encode_source(texts)
    source = np.zeros((2, max(map(len, ids))), np.int32)
    for row, some in zip(source, ids, strict=True):
        row[: len(some)] = some
    found = names["translate"](source, np.array(list(map(len, ids)), np.int32), 6)
    decoding = dataclasses.replace(
        run.config.decoding, beam=1, max_length_ratio=0.0, max_length_extra=7
    )
    for theirs, ours in zip(found, Translator.of([run], decoding).translate(texts), strict=True):
        for a, b in zip(theirs, ours.tokens[:6], strict=False):
            assert a == b or a in (0, 2)  # we never put out padding and start
            if a != b:
                break
