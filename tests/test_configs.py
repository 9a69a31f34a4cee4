"""The shipped configurations: each loads, says what it is, and is what its header claims."""

import dataclasses
from pathlib import Path

import pytest

from nmt_ls.config_files import load_config
from nmt_ls.config_unused import check_unused

FOLDER = Path(__file__).resolve().parents[1] / "configs"
FILES = sorted(FOLDER.glob("*.yaml"))


def header(path: Path) -> str:
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return "\n".join(lines[:end])


def test_the_promised_configurations_are_there():
    assert {path.stem for path in FILES} == {
        "quickstart",
        "multi30k_en_de_cpu",
        "multi30k_en_de_tiny",
        "multi30k_study",
        "tatoeba_en_de",
        "wmt_base",
        "wmt_big",
    }


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_loads_and_names_its_test_sets(path):
    config = load_config(path)
    assert config.name
    assert config.data.validation is not None
    assert config.data.tests
    assert 0.0 in config.sweep.smoothing  # the baseline of a comparison
    assert not check_unused([config])


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_its_header_says_what_to_expect(path):
    text = header(path)
    for part in ("Data:", "Expected:", "Cost:", "How sure:"):
        assert part in text, f"{path.name} has no {part!r}"
    assert f"configs/{path.name} --run-dir checkpoints/{path.stem}" in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_early_stopping_does_not_favour_an_epsilon(path):
    training = load_config(path).training
    assert training.patience == 0
    assert training.average_last > 1
    # The averaged checkpoints are the last ones of a schedule that has ended or is flat.
    assert training.average_last * training.checkpoint_every <= training.max_steps / 2


def test_data_root_follows_the_environment(monkeypatch):
    monkeypatch.setenv("NMT_LS_DATA", "/elsewhere")
    for name in ("multi30k_en_de_cpu", "multi30k_en_de_tiny", "tatoeba_en_de"):
        assert load_config(FOLDER / f"{name}.yaml").data.root == "/elsewhere"
    monkeypatch.delenv("NMT_LS_DATA")
    assert load_config(FOLDER / "multi30k_en_de_cpu.yaml").data.root == "../shared/data"


def test_the_quickstart_needs_no_file():
    data = load_config(FOLDER / "quickstart.yaml").data
    corpora = [data.train, data.validation, *data.tests.values()]
    assert {corpus.kind for corpus in corpora} == {"phrasebook"}
    assert [corpus.split for corpus in corpora] == ["train", "validation", "test"]
    assert len({corpus.grammar for corpus in corpora}) == 1


def test_tiny_is_the_published_recipe():
    config = load_config(FOLDER / "multi30k_en_de_tiny.yaml")
    model, training = config.model, config.training
    assert config.data.pretokenized
    assert (model.encoder_layers, model.decoder_layers) == (4, 4)
    assert (model.width, model.feed_forward, model.heads) == (128, 256, 4)
    assert (model.norm, model.positions, model.tied_embeddings) == ("post", "sinusoidal", "all")
    assert (model.dropout, model.attention_dropout, model.activation_dropout) == (0.3, 0, 0)
    assert (config.loss.label_smoothing, config.loss.convention) == (0.1, "pytorch")
    assert (training.optimizer, training.beta1, training.beta2) == ("adam", 0.9, 0.98)
    assert (training.epsilon, training.clip_norm) == (1e-8, 25)
    assert (training.learning_rate, training.warmup_steps) == (5e-3, 2000)
    assert (training.schedule, training.max_steps) == ("inverse_sqrt", 8000)
    assert (training.batch_tokens, training.average_last) == (2 * 4096, 10)
    decoding = config.decoding
    assert (decoding.beam, decoding.length_penalty, decoding.length_alpha) == (5, "average", 1)


def test_the_study_is_the_published_recipe_over_epsilon_and_dropout():
    recipe, study = (
        load_config(FOLDER / f"{name}.yaml") for name in ("multi30k_en_de_tiny", "multi30k_study")
    )
    assert (study.data, study.subwords, study.model) == (recipe.data, recipe.subwords, recipe.model)
    assert (study.loss, study.decoding) == (recipe.loss, recipe.decoding)
    undecisive = ("validate_every", "keep_best")
    same = {name: getattr(recipe.training, name) for name in undecisive}
    assert dataclasses.replace(study.training, **same) == recipe.training
    assert study.evaluation.lowercase_tokenized
    assert len(study.sweep.smoothing) == 7
    assert {0.0, 0.1} < set(study.sweep.smoothing)
    assert study.sweep.seeds == 5
    assert study.sweep.grid == {"model.dropout": (0, 0.3)}


@pytest.mark.parametrize(
    ("name", "sizes", "dropout", "steps"),
    [
        ("wmt_base", (512, 2048, 8), 0.1, 100_000),
        ("wmt_big", (1024, 4096, 16), 0.3, 300_000),
    ],
)
def test_wmt_is_the_papers(name, sizes, dropout, steps):
    config = load_config(FOLDER / f"{name}.yaml")
    model, training = config.model, config.training
    assert (model.width, model.feed_forward, model.heads) == sizes
    assert (model.encoder_layers, model.decoder_layers, model.norm) == (6, 6, "post")
    assert (model.dropout, training.max_steps) == (dropout, steps)
    assert model.compute == "bfloat16"
    # Vaswani et al. 2017, equation 3, at its peak.
    peak = model.width**-0.5 * training.warmup_steps**-0.5
    assert training.learning_rate == pytest.approx(peak, rel=0.01)
    corpora = [config.data.train, config.data.validation, *config.data.tests.values()]
    assert [corpus.split for corpus in corpora] == ["train", "validation", "test"]
    for corpus in corpora:
        assert (corpus.kind, corpus.path, corpus.name) == ("datasets", "wmt/wmt14", "de-en")
        assert (corpus.source, corpus.target) == ("translation.en", "translation.de")
