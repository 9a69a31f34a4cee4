"""Subwords of our own runs in Marian's tokenizer."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import sentencepiece
from test_interchange_marian import exported
from test_subwords import ENGLISH, GERMAN
from tiny import MODEL, random_params

from nmt_ls.config import Config, CorpusConfig, DataConfig, ModelConfig
from nmt_ls.data.subwords import Subwords
from nmt_ls.interchange.marian import write_run
from nmt_ls.training.runs import LoadedRun, load_run


def run_with_pieces(folder: Path, **trainer: Any) -> LoadedRun:
    """A run with random parameters and a SentencePiece model that was trained elsewhere."""
    trained = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*ENGLISH, *GERMAN]), model_writer=trained, vocab_size=150,
        minloglevel=2, **trainer,
    )  # fmt: skip
    subwords = Subwords(trained.getvalue())
    model = ModelConfig(**{**vars(MODEL), "norm": "post", "norm_epsilon": 1e-5})
    config = Config(data=DataConfig(train=CorpusConfig(kind="none"), max_length=32), model=model)
    size = subwords.target_size
    folder.mkdir()
    write_run(folder, config, subwords, random_params(model, size, size))
    return load_run(folder)


@pytest.mark.parametrize("trainer", [{}, {"bos_id": -1, "pad_id": -1}])
def test_special_tokens_are_left_out_of_texts(trainer: dict[str, int], tmp_path: Path) -> None:
    run = run_with_pieces(tmp_path / "run", **trainer)
    exported(run.run_dir, tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    listed = json.loads((tmp_path / "out" / "vocab.json").read_text())
    subwords = run.subwords
    for token in ("pad", "unk", "bos", "eos"):
        assert listed[settings[f"{token}_token"]] == getattr(subwords, token), token
    transformers = pytest.importorskip("transformers")
    theirs = transformers.MarianTokenizer.from_pretrained(tmp_path / "out")
    rows = [[subwords.bos, *subwords.encode_target([text])[0], subwords.pad] for text in GERMAN]
    rows = [row for row in rows if subwords.unk not in row]  # the two write it differently
    assert len(rows) > 5 and theirs.batch_decode(rows, skip_special_tokens=True) == subwords.decode(
        [row[1:] for row in rows]
    )


@pytest.mark.parametrize("trainer", [{}, {"user_defined_symbols": [">>de<<", ">>fr<<"]}])
def test_codes_among_our_pieces_are_told(
    trainer: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_with_pieces(tmp_path / "run", **trainer)
    exported(run.run_dir, tmp_path / "out")
    told = capsys.readouterr().err
    assert ("language codes as pieces (>>de<<, >>fr<<)" in told) is bool(trainer), told
    transformers = pytest.importorskip("transformers")
    theirs = transformers.MarianTokenizer.from_pretrained(tmp_path / "out")
    texts = [">>de<< bread", "bread"]
    ours, others = run.subwords.encode_source(texts), theirs(texts)["input_ids"]
    assert ours[0] != others[0] and ours[1] == others[1]
