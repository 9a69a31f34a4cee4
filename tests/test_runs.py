"""Run directories: which parameters are loaded from them."""

import shutil
import subprocess
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from tiny import tiny_config, tiny_data, with_training

from nmt_ls.config import Config
from nmt_ls.errors import UserError
from nmt_ls.training import runs
from nmt_ls.training.checkpoints import Checkpoints
from nmt_ls.training.opening import open_run
from nmt_ls.training.progress import Progress
from nmt_ls.training.runs import average_run, load_params, load_run, regular_steps


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    config = tiny_config(tmp_path_factory.mktemp("data"))
    return config, tiny_data(config)


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


@pytest.mark.skipif(shutil.which("git") is None, reason="no git")
def test_the_revision_is_of_our_own_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Installed into an environment inside another project, ours is not that project's."""
    (tmp_path / "runs.py").touch()
    (tmp_path / "installed").mkdir()
    (tmp_path / "installed" / "runs.py").touch()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=x", "-c", "user.email=x@x"]
    for arguments in (["init", "-q"], ["add", "runs.py"], ["commit", "-qm", "x"]):
        subprocess.run([*git, *arguments], check=True)
    found = []
    for name in ("runs.py", "installed/runs.py"):
        monkeypatch.setattr(runs, "__file__", str(tmp_path / name))
        found.append(runs.environment()["git_revision"])
    assert found[0]
    assert found[1] is None
