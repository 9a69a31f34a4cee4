"""A run directory: what it holds, who may continue it, and which parameters to load from it."""

import contextlib
import dataclasses
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nmt_ls.config import Config
from nmt_ls.config_files import differences, load_resolved, save_config
from nmt_ls.data.prepare import PreparedData
from nmt_ls.data.subwords import Subwords
from nmt_ls.errors import UserError
from nmt_ls.training.checkpoints import Checkpoints, load_average, mean_of_params, save_average
from nmt_ls.training.optimizer import depends_on_max_steps
from nmt_ls.training.progress import Progress

# What a continued run may change: nothing here decides a parameter's value at a given step.
_FREE_SECTIONS = (
    "decoding",
    "evaluation",
    "sweep",
    "name",
    "data.tests",
    "data.validation",
    "data.root",
)
_FREE_FIELDS = (
    "data.cache_dir",
    "data.num_proc",
    "data.source_language",
    "data.target_language",
    "subwords.model_file",  # the fingerprint covers what is in it
    "subwords.source_model_file",
    "training.patience",
    "training.log_every",
    "training.validate_every",
    "training.validate_bleu",
    "training.checkpoint_every",
    "training.keep_last",
    "training.keep_best",
    "training.best_metric",
    "training.average_last",
    "training.tensorboard",
)


def may_differ(key: str, config: Config) -> bool:
    """Whether a run that is continued may have another value of a setting."""
    if key == "training.max_steps":
        scheduled = config.loss.schedule != "constant"
        return not (depends_on_max_steps(config.training) or scheduled)
    if key.startswith("data.train."):
        # Where the text lies may change; the fingerprint says whether it is the same text.
        return key.rsplit(".", 1)[1] in ("path", "source", "target")
    return key in _FREE_FIELDS or any(
        key == section or key.startswith(section + ".") for section in _FREE_SECTIONS
    )


def check_settings(run_dir: Path, config: Config) -> None:
    """Check that a run that was begun may be continued with this configuration.

    Raises:
      UserError: it belongs to another one; the settings that differ are named.
    """
    stored = load_resolved(run_dir / "config.yaml")
    refused = [d for d in differences(stored, config) if not may_differ(d[0], config)]
    if refused:
        shown = "; ".join(f"{k} is {a!r} there and {b!r} here" for k, a, b in refused[:4])
        more = f" (and {len(refused) - 4} more)" if len(refused) > 4 else ""
        raise UserError(
            f"{run_dir} belongs to another configuration: {shown}{more}\n"
            "choose another --run-dir, or go back to the settings it was begun with"
        )


def check_run(run_dir: Path, config: Config, data: PreparedData) -> None:
    """Check that a run directory may be continued with this configuration, or made.

    Raises:
      UserError: it belongs to another configuration or other data; the differing keys are named.
    """
    if (run_dir / "config.yaml").exists():
        check_settings(run_dir, config)
        fingerprint = json.loads((run_dir / "data.json").read_text())["fingerprint"]
        if fingerprint != data.fingerprint:
            raise UserError(
                f"{run_dir} was trained on other text or other subwords than data.train gives now\n"
                "choose another --run-dir, or go back to the text it was begun with"
            )
    elif run_dir.exists() and any(run_dir.iterdir()):
        raise UserError(f"{run_dir} is not empty and has no config.yaml; choose another --run-dir")


def open_run(run_dir: Path, config: Config, data: PreparedData) -> None:
    """Make a run directory, or check that the one there may be continued with this configuration.

    Raises:
      UserError: see `check_run`.
    """
    check_run(run_dir, config, data)
    run_dir.mkdir(parents=True, exist_ok=True)
    data.subwords.save(run_dir)
    report = {**data.report, "fingerprint": data.fingerprint}
    write_beside(run_dir / "data.json", json.dumps(report, indent=1) + "\n")
    write_beside(run_dir / "environment.json", json.dumps(environment(), indent=1) + "\n")
    # Last: a directory with config.yaml has the other files too.
    save_config(config, run_dir / "config.yaml")


def write_beside(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    beside = path.with_name(path.name + ".tmp")
    beside.write_text(text, encoding="utf-8")
    os.replace(beside, path)


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
    git = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        "versions": versions,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "devices": [f"{d.platform}: {d.device_kind}" for d in jax.devices()],
        "git_revision": git.stdout.strip() or None,
    }


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
        return params, "average of " + ", ".join(map(str, steps))
    if not directory.is_dir():
        raise UserError(f"{run_dir} has no checkpoint yet")
    with contextlib.closing(Checkpoints(directory)) as checkpoints:
        step = _chosen_step(run_dir, checkpoints, choice)
        return checkpoints.params(step), str(step)


def _chosen_step(run_dir: Path, checkpoints: Checkpoints, choice: str) -> int:
    steps = checkpoints.steps()
    if not steps:
        raise UserError(f"{run_dir} has no checkpoint yet")
    if choice == "last":
        return steps[-1]
    if choice == "best":
        progress = Progress(**checkpoints.host(steps[-1]))
        larger = load_resolved(run_dir / "config.yaml").training.best_metric == "bleu"
        # A run without validations has no best; its last is as good.
        return [*progress.best_steps(steps, larger=larger), steps[-1]][0]
    if not choice.isdigit():
        raise UserError(f"--checkpoint {choice}: choose best, last, average or a step")
    if int(choice) not in steps:
        raise UserError(
            f"{run_dir} has no checkpoint {choice}; it has {', '.join(map(str, steps))}"
        )
    return int(choice)


def average_run(run_dir: Path, last: int) -> list[int]:
    """Write `checkpoints/average/`, the mean of the last checkpoints; returns their steps.

    Counted are the regular checkpoints (every `training.checkpoint_every` steps, and the last),
    not those kept only for being the best.

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
    """Of checkpointed steps, those on the grid of `checkpoint_every`, and the run's last step."""
    every, last = config.training.checkpoint_every, config.training.max_steps
    return [s for s in steps if s % every == 0 or s == last] or steps[-1:]
