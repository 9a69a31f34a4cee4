"""Run directories: who may continue them, and which parameters are loaded."""

import dataclasses
import json
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config, tiny_data, with_loss, with_training

from nmt_ls.config import Config
from nmt_ls.config_files import load_resolved
from nmt_ls.errors import UserError
from nmt_ls.training.checkpoints import Checkpoints
from nmt_ls.training.progress import Progress
from nmt_ls.training.runs import average_run, load_params, load_run, open_run, regular_steps


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    config = tiny_config(tmp_path_factory.mktemp("data"))
    return config, tiny_data(config)


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


def test_what_may_differ(prepared, tmp_path: Path) -> None:
    config, data = prepared
    open_run(tmp_path, config, data)
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
    open_run(tmp_path, config, data)
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
    open_run(tmp_path, config, data)
    with pytest.raises(UserError, match=r"training\.max_steps is 12 there and 14 here"):
        open_run(tmp_path, with_training(config, max_steps=14), data)


def test_more_steps_under_a_schedule_of_epsilon(prepared, tmp_path: Path) -> None:
    config, data = prepared
    config = with_loss(config, schedule="linear")
    open_run(tmp_path, config, data)
    with pytest.raises(UserError, match=r"training\.max_steps"):
        open_run(tmp_path, with_training(config, max_steps=14), data)


def test_other_text_is_refused(prepared, tmp_path: Path) -> None:
    config, data = prepared
    open_run(tmp_path, config, data)
    with pytest.raises(UserError, match="other text"):
        open_run(tmp_path, config, dataclasses.replace(data, fingerprint="0" * 32))


def test_somebody_elses_folder_is_refused(prepared, tmp_path: Path) -> None:
    config, data = prepared
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(UserError, match="not empty"):
        open_run(tmp_path, config, data)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def filled(prepared, run: Path, validated: dict[int, float], **training: object) -> Config:
    """A run with checkpoints 4, 8, 10, 12 whose parameter is its step."""
    config, data = prepared
    config = with_training(config, **training)
    open_run(run, config, data)
    checkpoints = Checkpoints(run / "checkpoints")
    for step in (4, 8, 10, 12):
        known = {str(s): v for s, v in validated.items() if s <= step}
        host = Progress(step=step, validated=known).as_dict()
        checkpoints.save(step, {"params": {"w": jnp.full(2, float(step))}}, host)
        checkpoints.wait()
    checkpoints.close()
    return config


def loaded(run: Path, checkpoint: str) -> tuple[float, str]:
    params, name = load_params(run, checkpoint)
    return float(params["w"][0]), name


def test_which_parameters_are_loaded(prepared, tmp_path: Path) -> None:
    filled(prepared, tmp_path, {4: 9.0, 8: 5.0, 10: 5.0, 12: 7.0, 6: 1.0})
    assert loaded(tmp_path, "last") == (12, "12")
    assert loaded(tmp_path, "best") == (8, "8"), "the earlier of two; 6 was not kept"
    assert loaded(tmp_path, "4") == (4, "4")
    assert loaded(tmp_path, "") == (8, "8"), "no average: the best"
    with pytest.raises(UserError, match="nmt-ls average"):
        load_params(tmp_path, "average")
    with pytest.raises(UserError, match="it has 4, 8, 10, 12"):
        load_params(tmp_path, "5")
    with pytest.raises(UserError, match="best, last, average or a step"):
        load_params(tmp_path, "newest")
    # 10 is no regular one: neither a multiple of 4 nor the last.
    assert average_run(tmp_path, 2) == [8, 12]
    assert loaded(tmp_path, "average") == (10, "average of 8, 12")
    assert loaded(tmp_path, "") == (10, "average of 8, 12")
    assert average_run(tmp_path, 9) == [4, 8, 12]
    assert loaded(tmp_path, "average")[0] == 8
    assert loaded(tmp_path, "last") == (12, "12")


def test_the_best_bleu_is_the_largest(prepared, tmp_path: Path) -> None:
    filled(prepared, tmp_path, {4: 9.0, 8: 5.0, 12: float("nan")}, best_metric="bleu")
    assert loaded(tmp_path, "best") == (4, "4")


def test_without_validations_the_last_is_best(prepared, tmp_path: Path) -> None:
    filled(prepared, tmp_path, {})
    assert loaded(tmp_path, "best") == (12, "12")


def test_a_loaded_run(prepared, tmp_path: Path) -> None:
    config = filled(prepared, tmp_path, {})
    run = load_run(tmp_path, "8")
    assert (run.config, run.checkpoint) == (config, "8")
    assert run.subwords.target_size == prepared[1].subwords.target_size
    np.testing.assert_array_equal(run.params["w"], [8, 8])


def test_no_run_at_all(prepared, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run directory"):
        load_run(tmp_path)
    with pytest.raises(UserError, match="not a run directory"):
        average_run(tmp_path, 3)
    open_run(tmp_path / "run", *prepared)
    with pytest.raises(UserError, match="no checkpoint yet"):
        load_run(tmp_path / "run")


def test_regular_steps(prepared) -> None:
    config = prepared[0]  # every 4, 12 in all
    assert regular_steps([3, 4, 8, 11, 12], config) == [4, 8, 12]
    assert regular_steps([3, 7], config) == [7]
    assert regular_steps([], config) == []
