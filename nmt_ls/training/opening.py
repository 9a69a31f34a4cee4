"""How a run directory begins, and whether what is there may be continued."""

import contextlib
import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nmt_ls.config import Config
from nmt_ls.config_files import differences, load_resolved, save_config
from nmt_ls.data.prepare import PreparedData, given_subwords
from nmt_ls.data.subwords import Subwords
from nmt_ls.errors import UserError
from nmt_ls.model.attention import has_cudnn
from nmt_ls.outputs import write_beside
from nmt_ls.training.bookkeeping import DIVERGED
from nmt_ls.training.checkpoints import Checkpoints, checksum, steps_in
from nmt_ls.training.lock import LOCK, RESULTS_LOCK
from nmt_ls.training.optimizer import depends_on_max_steps
from nmt_ls.training.progress import Progress
from nmt_ls.training.runs import LoadedRun, environment

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
    """Check that a directory may be this configuration's run: made, or continued.

    Raises:
      UserError: it belongs to another one, of which the settings that differ are named, is beyond
        `training.max_steps`, or holds something else.
    """
    if _may_be_begun(run_dir):
        return
    if not (run_dir / "config.yaml").exists():
        raise UserError(f"{run_dir} is not empty and has no config.yaml; choose another --run-dir")
    refused = _refused(run_dir, config)
    reached = steps_in(run_dir / "checkpoints")[-1:]
    if reached and reached[0] > config.training.max_steps:
        # It cannot go back, and would be compared with others as if it had.
        raise UserError(
            f"{run_dir} is at step {reached[0]}, beyond"
            f" training.max_steps={config.training.max_steps}\n"
            "raise it, or choose another --run-dir"
        )
    if refused:
        shown = "; ".join(f"{k} is {a!r} there and {b!r} here" for k, a, b in refused[:4])
        more = f" (and {len(refused) - 4} more)" if len(refused) > 4 else ""
        raise UserError(
            f"{run_dir} belongs to another configuration: {shown}{more}\n"
            "choose another --run-dir, or go back to the settings it was begun with"
        )


def _refused(run_dir: Path, config: Config) -> list[tuple[str, Any, Any]]:
    stored = load_resolved(run_dir / "config.yaml")
    return [d for d in differences(stored, config) if not may_differ(d[0], config)]


def begun_subwords(run_dir: Path) -> Subwords | None:
    """The subwords of a run that has begun and must go on with them; None of one that has not."""
    begun = (run_dir / "config.yaml").exists() and not _may_be_begun(run_dir)
    return Subwords.load(run_dir) if begun else None


def check_data(run_dir: Path, config: Config, data: PreparedData) -> None:
    """Check that a run that has begun was trained on this text, with these subwords.

    Args:
      run_dir: of the run.
      config, data: what is asked for now.

    Raises:
      UserError: it was not.
    """
    stored = _stored_data(run_dir)
    if not _is_text_of(stored, data):
        package = "" if "text" in stored else " (or another version of sentencepiece)"
        raise UserError(
            f"{run_dir} was trained on other text or other subwords than data.train gives now\n"
            f"choose another --run-dir, or go back to the text{package} it was begun with"
        )
    if Subwords.load(run_dir).fingerprint != data.subwords.fingerprint:
        given = ", ".join(f"{key}={value}" for key, value in given_subwords(config).items())
        trained = f"this text gives now (SentencePiece {version('sentencepiece')})"
        now = f"there are now in {given}" if given else trained
        raise UserError(
            f"{run_dir} has other subwords than {now}\n"
            "choose another --run-dir, or go back to the subwords it was begun with"
        )


def _stored_data(run_dir: Path) -> dict[str, Any]:
    return json.loads((run_dir / "data.json").read_text(encoding="utf-8"))


def _is_text_of(stored: dict[str, Any], data: PreparedData) -> bool:
    # Runs begun by older versions have only the digest that SentencePiece's version is part of.
    return stored["fingerprint"] == data.fingerprint or stored.get("text") == data.text


def check_attention(config: Config) -> None:
    """Check that this machine has the kernel that the run is to be trained with.

    Raises:
      UserError: it has not.
    """
    if config.model.attention == "cudnn" and not has_cudnn():
        raise UserError(
            "model.attention=cudnn needs a GPU, and there is none here; train on a machine with "
            "one, or begin a run with model.attention=auto"
        )


def _check_teacher(run_dir: Path, config: Config, teacher: LoadedRun | None) -> None:
    stored = _stored_data(run_dir).get("teacher")
    if teacher is None or stored is None:  # begun by a version that did not store it
        return
    if stored["checksum"] == checksum(teacher.params) or is_over(run_dir, config):
        return
    raise UserError(
        f"{run_dir} was begun with checkpoint {stored['checkpoint']} of its teacher"
        f" {teacher.run_dir}, which now gives other parameters ({teacher.checkpoint})\n"
        "choose another --run-dir, or bring the teacher's checkpoints back to what they were"
    )


def is_over(run_dir: Path, config: Config) -> bool:
    """Whether a run that has begun has no step left, as far as its last checkpoint tells."""
    directory = run_dir / "checkpoints"
    steps = steps_in(directory)
    if not steps or steps[-1] >= config.training.max_steps:
        return bool(steps)
    if not config.training.patience:
        return False
    with contextlib.closing(Checkpoints(directory)) as checkpoints:
        try:
            progress = Progress(**checkpoints.host(steps[-1]))
        except UserError:  # damaged: training goes on from an older one
            return False
    return progress.over(config.training)


def check_run(
    run_dir: Path, config: Config, data: PreparedData, teacher: LoadedRun | None = None
) -> None:
    """Check that a run directory may be continued with this configuration, or made.

    Raises:
      UserError: it belongs to another configuration or other data; the differing keys are named;
        steps are left and its teacher has since been trained further or averaged; what
        `check_attention` raises where the run begins.
    """
    check_settings(run_dir, config)
    if _may_be_begun(run_dir):
        check_attention(config)
    else:
        check_data(run_dir, config, data)
        _check_teacher(run_dir, config, teacher)


_FIRST_FILES = (
    "subwords.model",
    "source_subwords.model",
    "subwords.json",
    "vocabulary.json",
    "data.json",
    "environment.json",
    "config.yaml",
)
"""What a run directory gets before it is one, `config.yaml` last."""

_NEXT_FILES = ("metrics.jsonl", "prior.npy", DIVERGED)
"""What it may have before its first checkpoint."""


def _may_be_begun(run_dir: Path) -> bool:
    """Whether nothing is lost if a run begins here: there is none, or none with a checkpoint.

    Whoever was told to lower `training.batch_tokens` or the learning rate gets on in this way.
    """
    if not run_dir.exists():
        return True
    if not run_dir.is_dir():
        raise UserError(f"{run_dir} is a file; choose another --run-dir")
    if not (run_dir / "config.yaml").exists():
        return all(
            found.name in (LOCK, RESULTS_LOCK)
            or any(found.name == name or _is_unfinished(found.name, name) for name in _FIRST_FILES)
            for found in run_dir.iterdir()
        )
    checkpoints = run_dir / "checkpoints"
    kept = checkpoints.iterdir() if checkpoints.is_dir() else ()
    has_any = any(path.name == "average" or path.name.isdigit() for path in kept)
    return not has_any and not (run_dir / "results.json").exists()


def _is_unfinished(found: str, name: str) -> bool:
    return found == f"{name}.tmp" or found.startswith(f".{name}.")


def open_run(
    run_dir: Path, config: Config, data: PreparedData, teacher: LoadedRun | None = None
) -> None:
    """Make a run directory, or check that the one there may be continued with this configuration.

    A run that has no checkpoint yet is begun anew if it has other settings or other data.

    Raises:
      UserError: see `check_run`.
    """
    check_run(run_dir, config, data, teacher)
    begun = (run_dir / "config.yaml").exists()
    # Of a finished run the teacher may be another by now.
    learnt_from = None if _may_be_begun(run_dir) else _stored_data(run_dir).get("teacher")
    if run_dir.exists() and not (
        begun and not _refused(run_dir, config) and _is_text_of(_stored_data(run_dir), data)
    ):
        for left in run_dir.iterdir():
            if any(left.name == n or _is_unfinished(left.name, n) for n in _FIRST_FILES):
                left.unlink()
        for name in _NEXT_FILES:
            (run_dir / name).unlink(missing_ok=True)
    run_dir.mkdir(parents=True, exist_ok=True)
    data.subwords.save(run_dir)
    report = {**data.report, "fingerprint": data.fingerprint, "text": data.text}
    if teacher is not None:
        state = {"checkpoint": teacher.checkpoint, "checksum": checksum(teacher.params)}
        report["teacher"] = learnt_from or state
    write_beside(run_dir / "data.json", json.dumps(report, indent=1) + "\n")
    write_beside(run_dir / "environment.json", json.dumps(environment(), indent=1) + "\n")
    # Last: a directory with config.yaml has the other files too.
    save_config(config, run_dir / "config.yaml")
