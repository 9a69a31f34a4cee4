"""Marian models here and in transformers itself, where it is installed."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_interchange_marian import (
    FIXTURES,
    exported,
    imported,
    logits_of,
    native_run,
    without_padding,
)
from tiny import assert_close

from nmt_ls.cli import main
from nmt_ls.decoding.translator import Translator
from nmt_ls.training.runs import LoadedRun, load_run

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

TEXTS = [
    "The old man carries bread.",
    "  spaces  before,  between and after ",
    ">>de<< a green river",
    ">>xx<< an unknown code",
    "a >>de<< code in the middle",
    "字 and ｆｕｌｌ ﬁ",
    "",
]

CONFIGS: dict[str, dict[str, Any]] = {
    "many layers, heads and positions": {
        "encoder_layers": 4, "decoder_layers": 2, "encoder_attention_heads": 4,
        "decoder_attention_heads": 4, "max_position_embeddings": 300, "length": 290,
    },
    "gelu_new, not scaled": {"activation_function": "gelu_new", "scale_embedding": False},
    "two vocabularies": {"share_encoder_decoder_embeddings": False, "decoder_vocab_size": 142},
    "two vocabularies, untied": {
        "share_encoder_decoder_embeddings": False, "tie_word_embeddings": False,
        "activation_function": "silu",
    },
}  # fmt: skip


def random_marian(folder: Path, **settings: Any) -> Any:
    """A Marian model with the tokenizer of the fixture; biases and norms are random too."""
    tokenizer = transformers.MarianTokenizer.from_pretrained(FIXTURES / "opus")
    tokenizer.save_pretrained(folder)
    config = transformers.MarianConfig(**{
        "vocab_size": 142, "d_model": 32, "encoder_layers": 1, "decoder_layers": 1,
        "encoder_attention_heads": 2, "decoder_attention_heads": 2, "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48, "max_position_embeddings": 64, "pad_token_id": 141,
        "decoder_start_token_id": 141, "eos_token_id": 0, "forced_eos_token_id": None,
        "scale_embedding": True, "activation_function": "swish", **settings,
    })  # fmt: skip
    torch.manual_seed(1)
    model = transformers.MarianMTModel(config).eval()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "embed_positions" not in name:
                value.add_(torch.randn(value.shape) * 0.2)
        model.final_logits_bias.normal_()
    model.save_pretrained(folder)
    return model


def random_ids(length: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Source ids, their lengths, decoder inputs; the rows are filled up with padding."""
    generator = np.random.default_rng(5)
    source = generator.integers(2, 140, size=(4, length))
    lengths = np.array([length, 3, length // 2, 1])
    source[np.arange(length) >= lengths[:, None]] = 141
    inputs = generator.integers(2, 140, size=(4, length))
    inputs[:, 0] = 141
    return source, lengths, inputs


def their_logits(
    model: Any, source: np.ndarray, lengths: np.ndarray, inputs: np.ndarray
) -> np.ndarray:
    mask = torch.tensor(np.arange(source.shape[1]) < lengths[:, None]).long()
    with torch.no_grad():
        found = model(
            input_ids=torch.tensor(source), attention_mask=mask,
            decoder_input_ids=torch.tensor(inputs), use_cache=False,
        )  # fmt: skip
    return found.logits.numpy()


@pytest.mark.parametrize("name", CONFIGS)
def test_logits_both_ways(name: str, tmp_path: Path) -> None:
    settings = dict(CONFIGS[name])
    ids = random_ids(settings.pop("length", 11))
    model = random_marian(tmp_path / "theirs", **settings)
    expected = their_logits(model, *ids)
    run = imported(tmp_path / "theirs", tmp_path / "run")
    assert_close(logits_of(run, *ids), expected, 1e-5)
    exported(tmp_path / "run", tmp_path / "back")
    back = transformers.MarianMTModel.from_pretrained(tmp_path / "back").eval()
    for key, value in model.state_dict().items():
        assert torch.equal(back.state_dict()[key], value), key
    np.testing.assert_array_equal(their_logits(back, *ids), expected)


@pytest.fixture(scope="module")
def opus(tmp_path_factory: pytest.TempPathFactory) -> LoadedRun:
    return imported(FIXTURES / "opus", tmp_path_factory.mktemp("opus") / "run")


@pytest.mark.parametrize("name", ["opus", "separate"])
def test_ids_and_texts_are_those_of_their_tokenizer(name: str, tmp_path: Path) -> None:
    theirs = transformers.MarianTokenizer.from_pretrained(FIXTURES / name)
    ours = imported(FIXTURES / name, tmp_path / "run").subwords
    assert ours.encode_source(TEXTS) == theirs(TEXTS)["input_ids"]
    targets = ["Der alte Mann trägt Brot.", "", "ein 字"]
    assert ours.encode_target(targets) == theirs(text_target=targets)["input_ids"]
    rows = [[5, 9, 30, 7, 0, 4], [*range(2, 80)], [ours.pad, 12, 13, ours.pad]]
    ends = [row[: row.index(0)] if 0 in row else row for row in rows]
    decoded = [theirs.decode(row, skip_special_tokens=True) for row in ends]
    assert ours.decode(rows) == decoded


def test_greedy_translations_are_those_of_generate(opus: LoadedRun, tmp_path: Path) -> None:
    model = transformers.MarianMTModel.from_pretrained(FIXTURES / "opus").eval()
    tokenizer = transformers.MarianTokenizer.from_pretrained(FIXTURES / "opus")
    texts = ["The old man carries bread.", "a river", "never between"]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    generated = model.generate(
        **batch, num_beams=1, do_sample=False, max_new_tokens=12, bad_words_ids=[[141]],
        forced_eos_token_id=None,
    )  # fmt: skip
    decoding = dataclasses.replace(
        opus.config.decoding, beam=1, max_length_ratio=0.0, max_length_extra=13
    )
    found = Translator.of([opus], decoding).translate(texts)
    for row, translation in zip(generated[:, 1:].tolist(), found, strict=True):
        theirs = row[: row.index(0)] if 0 in row else row
        assert list(translation.tokens)[:12] == theirs
    assert len({t.text for t in found}) > 1


@pytest.mark.parametrize(
    "model",
    [
        {"norm_epsilon": 1e-5},
        {"norm_epsilon": 1e-5, "positions": "learned", "tied_embeddings": "none",
         "activation": "gelu"},
        {"positions": "sinusoidal_paper", "tied_embeddings": "decoder"},
    ],
)  # fmt: skip
def test_a_run_of_our_own_in_transformers(
    model: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    native_run(tmp_path / "run", norm="post", **model)
    run = load_run(tmp_path / "run")
    exported(tmp_path / "run", tmp_path / "theirs")
    exact = run.config.model.norm_epsilon == 1e-5
    assert ("norm_epsilon" in capsys.readouterr().err) is not exact
    theirs = transformers.MarianMTModel.from_pretrained(tmp_path / "theirs").eval()
    source, lengths, inputs = random_ids(11)
    inputs[:, 0] = run.subwords.bos
    expected = logits_of(run, source, lengths, inputs)
    assert_close(their_logits(theirs, source, lengths, inputs), expected, 1e-5 if exact else 1e-4)
    tokenizer = transformers.MarianTokenizer.from_pretrained(tmp_path / "theirs")
    texts = ["The old man carries bread.", "a river"]
    assert tokenizer(texts)["input_ids"] == run.subwords.encode_source(texts)
    assert theirs.generation_config.bad_words_ids == [[0], [2]]
    # And it comes back as it went.
    again = imported(tmp_path / "theirs", tmp_path / "again")
    back = without_padding(logits_of(again, source, lengths, inputs), again)
    assert_close(back, without_padding(expected, again), 1e-5 if exact else 1e-4)
    assert again.subwords.encode_source(texts) == run.subwords.encode_source(texts)


def test_their_pickles_convert_as_the_message_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = random_marian(tmp_path / "theirs")
    (tmp_path / "theirs" / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "theirs" / "pytorch_model.bin")
    command = ["import", str(tmp_path / "theirs"), "--run-dir", str(tmp_path / "run")]
    assert main(command) == 2
    assert "from_pretrained(DIR).save_pretrained(DIR)" in capsys.readouterr().err
    loaded = transformers.MarianMTModel.from_pretrained(tmp_path / "theirs")
    loaded.save_pretrained(tmp_path / "theirs")
    assert main(command) == 0
