"""How run directories begin, and who may continue them."""

import dataclasses
import json
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny import tiny_config, tiny_data, with_loss, with_training

from nmt_ls.config import Config
from nmt_ls.config_files import load_resolved, save_config
from nmt_ls.data.prepare import PreparedData
from nmt_ls.data.subwords import Subwords
from nmt_ls.errors import UserError
from nmt_ls.study.runs import _inputs_of, train_run
from nmt_ls.training.lock import LOCK, RESULTS_LOCK
from nmt_ls.training.opening import begun_subwords, open_run
from nmt_ls.training.runs import LoadedRun
from nmt_ls.training.trainer import fit


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    config = tiny_config(tmp_path_factory.mktemp("data"))
    return config, tiny_data(config)


def begin(run: Path, config: Config, data: PreparedData) -> None:
    """A run with a checkpoint, such as must not be lost."""
    open_run(run, config, data)
    (run / "checkpoints" / "4").mkdir(parents=True)


def test_what_a_new_run_holds(prepared, tmp_path: Path) -> None:
    config, data = prepared
    run = tmp_path / "run"
    open_run(run, config, data)
    names = {p.name for p in run.iterdir()}
    assert {"config.yaml", "environment.json", "data.json"} <= names
    assert load_resolved(run / "config.yaml") == config
    environment = json.loads((run / "environment.json").read_text())
    assert {"nmt_ls", "jax", "flax", "optax"} <= set(environment["versions"])
    assert environment["devices"]
    open_run(run, config, data)  # and again


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="cuDNN is there")
def test_training_with_cudnn_needs_it(prepared, tmp_path: Path) -> None:
    config, data = prepared
    model = dataclasses.replace(config.model, attention="cudnn", compute="bfloat16")
    cudnn = dataclasses.replace(config, model=model)
    with pytest.raises(UserError, match=r"needs a GPU.*model\.attention=auto"):
        fit(cudnn, data, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # Trained on a GPU so far: a finished run is left as it is, others need one to go on.
    begin(tmp_path / "begun", config, data)
    save_config(cudnn, tmp_path / "begun" / "config.yaml")
    open_run(tmp_path / "begun", cudnn, data)
    (tmp_path / "begun" / "checkpoints" / "4").rmdir()
    (tmp_path / "begun" / "results.json").touch()
    with pytest.raises(UserError, match="needs a GPU"):
        fit(cudnn, data, tmp_path / "begun")


def test_what_may_differ(prepared, tmp_path: Path) -> None:
    config, data = prepared
    begin(tmp_path, config, data)
    free = with_training(
        config, patience=3, log_every=7, validate_every=2, checkpoint_every=3, keep_last=9,
        keep_best=0, best_metric="bleu", average_last=2, max_steps=99,
    )  # fmt: skip
    free = dataclasses.replace(
        free, decoding=dataclasses.replace(config.decoding, beam=2), name="other"
    )
    open_run(tmp_path, free, data)
    assert load_resolved(tmp_path / "config.yaml") == free


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("training.learning_rate", 0.5),
        ("training.batch_tokens", 64),
        ("training.accumulation", 2),
        ("training.ema_decay", 0.5),
        ("model.width", 32),
        ("loss.label_smoothing", 0.2),
        ("subwords.sampling_candidates", 4),
        ("data.max_length", 20),
        ("seed", 2),
    ],
)
def test_what_may_not(prepared, tmp_path: Path, key: str, value: object) -> None:
    config, data = prepared
    begin(tmp_path, config, data)
    before = (tmp_path / "config.yaml").read_bytes()
    *section, name = key.split(".")
    if section:
        inner = dataclasses.replace(getattr(config, section[0]), **{name: value})
        name, value = section[0], inner
    with pytest.raises(UserError) as refused:
        open_run(tmp_path, dataclasses.replace(config, **{name: value}), data)
    assert f"{key} is " in str(refused.value)
    assert "--run-dir" in str(refused.value)
    assert (tmp_path / "config.yaml").read_bytes() == before


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_more_steps_under_a_schedule_that_ends(prepared, tmp_path: Path, schedule: str) -> None:
    config, data = prepared
    config = with_training(config, schedule=schedule)
    begin(tmp_path, config, data)
    with pytest.raises(UserError, match=r"training\.max_steps is 12 there and 14 here"):
        open_run(tmp_path, with_training(config, max_steps=14), data)


def test_more_steps_under_a_schedule_of_epsilon(prepared, tmp_path: Path) -> None:
    config, data = prepared
    config = with_loss(config, schedule="linear")
    begin(tmp_path, config, data)
    with pytest.raises(UserError, match=r"training\.max_steps"):
        open_run(tmp_path, with_training(config, max_steps=14), data)


def test_fewer_steps_than_are_done(prepared, tmp_path: Path) -> None:
    config, data = prepared
    begin(tmp_path, config, data)
    (tmp_path / "checkpoints" / "12").mkdir()
    with pytest.raises(UserError, match=r"is at step 12, beyond training\.max_steps=9\nraise it"):
        open_run(tmp_path, with_training(config, max_steps=9), data)
    open_run(tmp_path, with_training(config, max_steps=14), data)


def test_other_text_is_refused(prepared, tmp_path: Path) -> None:
    config, data = prepared
    begin(tmp_path, config, data)
    # Another version of SentencePiece, and the subwords are the same.
    upgraded = dataclasses.replace(data, fingerprint="1" * 32)
    open_run(tmp_path, config, upgraded)
    with pytest.raises(UserError, match="other text"):
        open_run(tmp_path, config, dataclasses.replace(data, fingerprint="0" * 32, text="0" * 32))
    stored = json.loads((tmp_path / "data.json").read_text())
    del stored["text"]  # begun by a version that did not store it
    (tmp_path / "data.json").write_text(json.dumps(stored))
    with pytest.raises(UserError, match="another version of sentencepiece"):
        open_run(tmp_path, config, data)
    open_run(tmp_path, config, upgraded)


def test_other_subwords_are_refused(prepared, tmp_path: Path) -> None:
    """The ids of a run's vocabulary must not change their meaning under it."""
    config, data = prepared
    assert begun_subwords(tmp_path) is None
    begin(tmp_path, config, data)
    other = Subwords.train(lambda: ["w01 x"], lambda: ["y"], config.subwords, pretokenized=True)
    with pytest.raises(UserError, match="has other subwords than this text gives now"):
        open_run(tmp_path, config, dataclasses.replace(data, subwords=other))
    both = dataclasses.replace(config.subwords, model_file="a.model", source_model_file="b.model")
    given = dataclasses.replace(config, subwords=both)
    with pytest.raises(UserError, match="now in subwords.model_file=a.model, subwords.source_mo"):
        open_run(tmp_path, given, dataclasses.replace(data, subwords=other))
    assert begun_subwords(tmp_path).fingerprint == data.subwords.fingerprint
    # A run that was begun with those goes on with them, whatever the cache has.
    other.save(tmp_path)
    found = _inputs_of(config, [tmp_path])[0]
    assert found.subwords.fingerprint == other.fingerprint
    open_run(tmp_path, config, found)


def test_settings_are_looked_at_before_the_text(prepared, tmp_path: Path, monkeypatch) -> None:
    config, data = prepared
    begin(tmp_path, config, data)
    monkeypatch.setattr("nmt_ls.study.runs.prepare", lambda *_, **__: pytest.fail("prepared"))
    with pytest.raises(UserError, match=r"belongs to another configuration: training\.learning"):
        train_run(with_training(config, learning_rate=0.5), tmp_path)


def test_another_state_of_the_teacher_is_refused(prepared, tmp_path: Path) -> None:
    config, data = prepared
    params = {"w": np.ones(3, np.float32)}
    teacher = LoadedRun(tmp_path / "teacher", config, data.subwords, params, "300")
    run = tmp_path / "run"
    begin(run, config, data)
    open_run(run, config, data, teacher)  # begun by a version that did not store it
    open_run(run, config, data, dataclasses.replace(teacher, checkpoint="average of 300"))
    further = dataclasses.replace(teacher, params={"w": np.zeros(3, np.float32)}, checkpoint="400")
    with pytest.raises(UserError, match=r"300 of its teacher .*other parameters \(400\)"):
        open_run(run, config, data, further)
    # Once it has learnt all, it is what it is: measured, but not trained further.
    (run / "checkpoints" / "4").rename(run / "checkpoints" / "12")
    open_run(run, config, data, further)
    with pytest.raises(UserError, match=r"300 of its teacher .*other parameters \(400\)"):
        open_run(run, with_training(config, max_steps=14), data, further)
    open_run(run, with_training(config, max_steps=14), data, teacher)


def test_somebody_elses_folder_is_refused(prepared, tmp_path: Path) -> None:
    config, data = prepared
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        open_run(tmp_path, config, data)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize("kept", ["checkpoints/average", "results.json"])
def test_what_is_not_begun_anew(prepared, tmp_path: Path, kept: str) -> None:
    """Somebody may have deleted the checkpoints once they were averaged and measured."""
    config, data = prepared
    open_run(tmp_path, config, data)
    (tmp_path / kept).mkdir(parents=True)
    with pytest.raises(UserError, match=r"training\.learning_rate"):
        open_run(tmp_path, with_training(config, learning_rate=0.5), data)


def test_without_a_checkpoint_it_begins_anew(prepared, tmp_path: Path) -> None:
    """A mistake, or "lower the learning rate", must not lock the directory."""
    config, data = prepared
    open_run(tmp_path, config, data)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "4.tmp").mkdir()
    (tmp_path / "metrics.jsonl").write_text('{"step": 1}\n')
    (tmp_path / "diverged.json").write_text("{}")
    (tmp_path / "source_subwords.model").write_bytes(b"of another vocabulary")
    open_run(tmp_path, config, data)
    assert (tmp_path / "metrics.jsonl").exists(), "the same run goes on"
    other = with_training(config, learning_rate=0.5)
    open_run(tmp_path, other, data)
    assert load_resolved(tmp_path / "config.yaml") == other
    assert not {"metrics.jsonl", "diverged.json"} & {path.name for path in tmp_path.iterdir()}
    assert not (tmp_path / "source_subwords.model").exists()
    text = dataclasses.replace(data, fingerprint="0" * 32, text="0" * 32)
    open_run(tmp_path, other, text)
    assert json.loads((tmp_path / "data.json").read_text())["fingerprint"] == "0" * 32


def test_an_emptied_folder_with_its_locks(prepared, tmp_path: Path) -> None:
    for lock in (LOCK, RESULTS_LOCK):
        (tmp_path / lock).touch()
    open_run(tmp_path, *prepared)


def test_killed_before_it_had_a_configuration(prepared, tmp_path: Path) -> None:
    config, data = prepared
    open_run(tmp_path, config, data)
    (tmp_path / "config.yaml").rename(tmp_path / ".config.yaml.x")
    (tmp_path / "vocabulary.json").write_text("{}")
    open_run(tmp_path, config, data)
    assert load_resolved(tmp_path / "config.yaml") == config
    assert not (tmp_path / ".config.yaml.x").exists()
    assert not (tmp_path / "vocabulary.json").exists()


def test_a_file_is_no_run(prepared, tmp_path: Path) -> None:
    config, data = prepared
    (tmp_path / "run").write_text("x")
    with pytest.raises(UserError, match="run is a file; choose another --run-dir"):
        open_run(tmp_path / "run", config, data)


def test_without_git(prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(*_: object, **__: object) -> None:
        raise FileNotFoundError("git")

    monkeypatch.setattr(subprocess, "run", run)
    config, data = prepared
    open_run(tmp_path, config, data)
    assert json.loads((tmp_path / "environment.json").read_text())["git_revision"] is None
