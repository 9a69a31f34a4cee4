"""A run directory: what it holds, and which parameters to load from it."""

import contextlib
import dataclasses
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nmt_ls.config import Config
from nmt_ls.config_files import load_resolved
from nmt_ls.data.subwords import Subwords
from nmt_ls.errors import UserError
from nmt_ls.training.checkpoints import Checkpoints, load_average, mean_of_params, save_average
from nmt_ls.training.progress import Progress


def environment() -> dict[str, Any]:
    """Versions, devices and the git revision of the installed source, where it has one."""
    packages: tuple[str, ...] = (
        "nmt_ls",
        "jax",
        "jaxlib",
        "flax",
        "optax",
        "orbax-checkpoint",
        "numpy",
    )
    packages += ("sentencepiece", "datasets", "sacrebleu")
    versions = {}
    for package in packages:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "unknown"
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    """Of the source, where git keeps it: an installed copy may lie in another project's folder."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", *arguments], cwd=here.parent, capture_output=True, text=True, check=False
        )
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        if not git("ls-files", "--error-unmatch", here.name):
            return None
        return git("describe", "--always", "--dirty", "--abbrev=12") or None
    except OSError:  # no git here
        return None


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A trained model, ready to translate, score or be evaluated."""

    run_dir: Path
    config: Config
    subwords: Subwords
    params: dict[str, np.ndarray]
    checkpoint: str
    """Which parameters these are, for people: `average of 100, 200` or `300`."""
    prior: np.ndarray | None = None
    """`[V]`, who received ε, where that was not uniform."""


def load_run(run_dir: Path, checkpoint: str = "") -> LoadedRun:
    """The model of a run directory.

    Args:
      run_dir: made by `nmt-ls train`.
      checkpoint: best, last, average or a step; empty: average if there is one, else best.

    Raises:
      UserError: no such run or checkpoint.
    """
    run_dir = Path(run_dir)
    if not (run_dir / "config.yaml").is_file():
        raise UserError(f"{run_dir} is not a run directory: it has no config.yaml")
    config = load_resolved(run_dir / "config.yaml")
    params, name = load_params(run_dir, checkpoint)
    subwords = Subwords.load(run_dir)
    return LoadedRun(run_dir, config, subwords, params, name, _load_prior(run_dir, subwords))


def save_prior(run_dir: Path, prior: np.ndarray) -> None:
    """Keep who received ε: it comes from the training text, which a run does not hold."""
    beside = run_dir / "prior.npy.tmp"
    with beside.open("wb") as file:
        np.save(file, prior, allow_pickle=False)
    os.replace(beside, run_dir / "prior.npy")


def _load_prior(run_dir: Path, subwords: Subwords) -> np.ndarray | None:
    path = run_dir / "prior.npy"
    if not path.exists():
        return None
    try:
        prior = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise UserError(f"{path} is damaged: {error}") from error
    if prior.shape != (subwords.target_size,):
        raise UserError(f"{path} has shape {prior.shape}, the vocabulary {subwords.target_size}")
    return prior


def load_params(run_dir: Path, checkpoint: str = "") -> tuple[dict[str, np.ndarray], str]:
    """(parameters, what they are) of a run; see `load_run`."""
    directory = run_dir / "checkpoints"
    has_average = (directory / "average").is_dir()
    choice = checkpoint or ("average" if has_average else "best")
    if choice == "average":
        if not has_average:
            raise UserError(f"{run_dir} has no averaged checkpoint; `nmt-ls average` makes one")
        params, steps = load_average(directory)
        return params, average_of(steps)
    if not directory.is_dir():
        raise UserError(f"{run_dir} has no checkpoint yet")
    with contextlib.closing(Checkpoints(directory)) as checkpoints:
        step = _chosen_step(run_dir, checkpoints, choice)
        return checkpoints.params(step), str(step)


def average_of(steps: list[int]) -> str:
    """What the mean of these checkpoints is called: `average of 100, 200`."""
    return "average of " + ", ".join(map(str, steps))


def _chosen_step(run_dir: Path, checkpoints: Checkpoints, choice: str) -> int:
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"{run_dir} has no checkpoint yet")
    if choice == "last":
        return steps[-1]
    if choice == "best":
        return _best_step(run_dir, checkpoints, steps)
    if not choice.isdigit():
        raise UserError(f"--checkpoint {choice}: choose best, last, average or a step")
    if int(choice) not in steps:
        raise UserError(
            f"{run_dir} has no checkpoint {choice}; it has {', '.join(map(str, steps))}"
        )
    return int(choice)


def best_step(run_dir: Path, *, deleted: Sequence[int] = ()) -> int:
    """The step that `load_params` calls best: of its checkpoints, the one that validated best.

    Args:
      run_dir: of a run that has checkpoints.
      deleted: steps that count too, if they were validated.
    """
    with contextlib.closing(Checkpoints(run_dir / "checkpoints")) as checkpoints:
        return _best_step(run_dir, checkpoints, sorted({*checkpoints.steps(), *deleted}))


def _best_step(run_dir: Path, checkpoints: Checkpoints, steps: Sequence[int]) -> int:
    last = checkpoints.steps()[-1]
    progress = Progress(**checkpoints.host(last))
    training = load_resolved(run_dir / "config.yaml").training
    # A run without validations has no best; its last is as good.
    return [*progress.best_steps(list(steps), training), last][0]


def average_run(run_dir: Path, last: int) -> list[int]:
    """Write `checkpoints/average/`, the mean of the last checkpoints; returns their steps.

    Counted are the regular checkpoints (every `training.checkpoint_every` steps, and step
    `training.max_steps`): not those kept only for being the best, nor one between two regular ones
    that a signal or early stopping has left, unless there is no other.

    Raises:
      UserError: no checkpoints.
    """
    directory = run_dir / "checkpoints"
    if not (run_dir / "config.yaml").is_file():
        raise UserError(f"{run_dir} is not a run directory: it has no config.yaml")
    config = load_resolved(run_dir / "config.yaml")
    with contextlib.closing(Checkpoints(directory)) as checkpoints:
        steps = regular_steps(checkpoints.steps(), config)[-last:]
        if not steps:
            raise UserError(f"{run_dir} has no checkpoint to average")
        save_average(directory, mean_of_params(checkpoints, steps), steps)
    return steps


def regular_steps(steps: list[int], config: Config) -> list[int]:
    """Of checkpointed steps, those on the grid of `checkpoint_every`, and `max_steps`.

    The last one if none of them is.
    """
    every, last = config.training.checkpoint_every, config.training.max_steps
    return [s for s in steps if s % every == 0 or s == last] or steps[-1:]
