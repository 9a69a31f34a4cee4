"""Language codes that were added to a Marian tokenizer, for a fine-tuning say."""

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from test_interchange_marian import copied, edit, exported, imported

from nmt_ls.training.runs import LoadedRun

CODE = ">>quy<<"
TEXTS = [f"{CODE} a green river", f"{CODE}bread", CODE, ">>de<< a river", ">>xx<< bread", "bread"]


def with_code(name: str, folder: Path) -> tuple[Path, int]:
    """A fixture with one code more, as `add_tokens` and `resize_token_embeddings` leave it."""
    copied(name, folder)
    path = folder / "model.safetensors"
    size = json.loads((folder / "config.json").read_text())["vocab_size"]
    tensors = load_file(path)
    if name == "opus":
        table = tensors["model.shared.weight"]
        tensors["model.shared.weight"] = np.concatenate([table, table[5:6]])
        tensors["final_logits_bias"] = np.pad(tensors["final_logits_bias"], [(0, 0), (0, 1)])
        edit(folder / "config.json", vocab_size=size + 1, decoder_vocab_size=size + 1)
    else:  # of the encoder alone
        table = tensors["model.encoder.embed_tokens.weight"]
        tensors["model.encoder.embed_tokens.weight"] = np.concatenate([table, table[5:6]])
        edit(folder / "config.json", vocab_size=size + 1)
    save_file(tensors, path)
    (folder / "added_tokens.json").write_text(json.dumps({CODE: size}))
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    more = {str(size): {**settings["added_tokens_decoder"]["0"], "content": CODE, "special": False}}
    decoder = settings["added_tokens_decoder"] | more
    edit(folder / "tokenizer_config.json", added_tokens_decoder=decoder)
    return folder, size


@pytest.mark.parametrize("name", ["opus", "separate"])
@pytest.mark.parametrize("left", ["both", "added_tokens.json", "tokenizer_config.json"])
def test_an_added_code_is_one_piece_and_goes_back(name: str, left: str, tmp_path: Path) -> None:
    folder, code = with_code(name, tmp_path / "given")
    if left == "added_tokens.json":
        edit(folder / "tokenizer_config.json", added_tokens_decoder={})
    elif left == "tokenizer_config.json":
        (folder / "added_tokens.json").unlink()
    run = imported(folder, tmp_path / "run")
    ids = [row[0] for row in run.subwords.encode_source(TEXTS)]
    assert ids[:3] == [code] * 3 and code not in ids[3:]
    exported(run.run_dir, tmp_path / "back")
    assert {p.name for p in (tmp_path / "back").iterdir()} | {"expected.safetensors"} == {
        p.name for p in folder.iterdir()
    }
    for file in folder.glob("*.json"):
        back = json.loads((tmp_path / "back" / file.name).read_text())
        assert back == json.loads(file.read_text()), file.name
    # A run that was trained on knows no more of where they stood: they are all listed.
    (run.run_dir / "huggingface.safetensors").unlink()
    exported(run.run_dir, tmp_path / "tuned")
    assert json.loads((tmp_path / "tuned" / "vocab.json").read_text())[CODE] == code
    same_ids(tmp_path / "tuned", run)


@pytest.mark.parametrize("name", ["opus", "separate"])
def test_ids_are_those_of_their_tokenizer(name: str, tmp_path: Path) -> None:
    folder, _ = with_code(name, tmp_path / "given")
    run = imported(folder, tmp_path / "run")
    exported(run.run_dir, tmp_path / "back")
    for where in (folder, tmp_path / "back"):
        same_ids(where, run)


def same_ids(folder: Path, run: LoadedRun) -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.MarianTokenizer.from_pretrained(folder)
    assert run.subwords.encode_source(TEXTS) == theirs(TEXTS)["input_ids"]
