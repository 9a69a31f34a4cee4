"""Which runs are finished: trained, averaged and measured as their configurations say."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nmt_ls.config import Config
from nmt_ls.data.evaluation_sets import fingerprint_now
from nmt_ls.data.subwords import Subwords
from nmt_ls.errors import UserError
from nmt_ls.evaluation.completeness import (
    is_complete,
    other_decoding,
    other_tokenizer,
    read_results,
)
from nmt_ls.evaluation.evaluate import validation_fingerprint
from nmt_ls.evaluation.results import digest_of
from nmt_ls.training.checkpoints import average_steps, steps_in
from nmt_ls.training.opening import is_over
from nmt_ls.training.runs import average_of, best_step, regular_steps
from nmt_ls.training.trainer import lacks_average


def _steps(run_dir: Path) -> list[int]:
    """The steps of a run that have a checkpoint, ascending."""
    return steps_in(run_dir / "checkpoints")


def to_average(run_dir: Path, config: Config) -> list[int]:
    """The steps whose mean a run's average is to be: the last regular ones, as many as asked for.

    An average that ends with the last and is of no fewer than are still there is to stay: others
    that it is of may have been deleted since, and cannot be averaged again.
    """
    last, stored = config.training.average_last, averaged(run_dir)
    there = regular_steps(_steps(run_dir), config)[-last:]
    if stored[-1:] != there[-1:] or not len(there) <= len(stored) <= last:
        return there
    # Of as many, but at other distances than `checkpoint_every` has now: those there are to be had.
    regular = regular_steps(stored, config) == stored
    return stored if regular or len(stored) > len(there) else there


def averaged(run_dir: Path) -> list[int]:
    """The steps that a run's average is the mean of; none without one."""
    directory = run_dir / "checkpoints"
    return average_steps(directory) if (directory / "average").is_dir() else []


def is_trained(run_dir: Path, config: Config) -> bool:
    """Whether a run has nothing left to train, nor to average."""
    if not _steps(run_dir) or not (run_dir / "config.yaml").exists():
        return False
    # Or has an old one: killed before it was renewed.
    return not lacks_average(config, run_dir) and is_over(run_dir, config)


def is_evaluated(run_dir: Path, config: Config) -> bool:
    """Whether results.json has what `evaluate_run` would measure of a trained run.

    Raises:
      UserError: a test set's text is gone.
    """
    if not (run_dir / "results.json").exists():
        return False
    try:
        done = read_results(run_dir)
    except UserError:  # measured again, it is written anew
        return False
    # `evaluate` may since have measured another checkpoint or with another beam, and the
    # configuration may since name other text or ask for more.
    subwords = Subwords.load(run_dir)
    validation = _validation_now(config, subwords)
    for name, corpus in config.data.tests.items():
        fingerprint = fingerprint_now(name, corpus, config.data, subwords)
        found = done.get(name, {})
        if not is_complete(found, config, fingerprint, validation):
            return False
        if not _has_its_translations(run_dir, name, found):
            return False
    # And the run may have been continued since.
    measured = {done[name]["checkpoint"] for name in config.data.tests}
    return all(name == checkpoint_of(run_dir, config, name) for name in measured)


def _validation_now(config: Config, subwords: Subwords) -> str:
    """As `validation_fingerprint`, but empty where the text is gone: what was fitted on it stays.

    What has yet to be fitted is not complete, and measuring it says what is missing.
    """
    try:
        return validation_fingerprint(config, subwords)
    except UserError:
        return ""


def checkpoint_of(run_dir: Path, config: Config, measured: str) -> str:
    """What the checkpoint is called that a run is to be evaluated with: its average, or its best.

    Args:
      run_dir: of a trained run. A best step stays the best when its checkpoint is deleted; of a
        run without any only the kind of checkpoint can be told.
      config: its configuration.
      measured: what the checkpoint is called that it was evaluated with.
    """
    last = config.training.average_last
    if not _steps(run_dir):
        right = measured.startswith("average") == bool(last)
        return measured if right else ("the average" if last else "the best")
    if last:
        return average_of(to_average(run_dir, config))
    return str(best_step(run_dir, deleted=[int(measured)] if measured.isdigit() else []))


def outdated(run_dir: Path, config: Config) -> str:
    """Why a run's stored results are not of it as its configuration says now; empty: they are.

    Its text is not looked at, and what is no longer there cannot tell: a sweep can be reported
    without the test sets and the checkpoints that it was made with. Sets that the configuration
    does not name are their evaluator's own; a sweep would not measure them again.
    """
    if _steps(run_dir) and not is_trained(run_dir, config):
        return "its training has not ended"
    try:
        done = read_results(run_dir)
    except UserError:
        return "results.json is damaged"
    for name in config.data.tests:
        found = done.get(name, {})
        if other := other_decoding(found, config):
            return f"{name} was evaluated with another {', '.join(f'decoding.{k}' for k in other)}"
        if other_tokenizer(found, config):
            return f"the words of {name} were split otherwise for BLEU ({found['bleu_signature']})"
        measured = str(found.get("checkpoint") or "")
        try:
            right = checkpoint_of(run_dir, config, measured) if measured else ""
        except UserError as error:  # its last checkpoint is damaged
            return str(error)
        if measured != right:
            return f"{name} was evaluated with checkpoint {measured}, not {right}"
        if not _has_its_translations(run_dir, name, found):
            return f"the translations of {name} are of another evaluation"
    return ""


def _has_its_translations(run_dir: Path, name: str, results: Mapping[str, Any]) -> bool:
    """Whether the translations there are those that were measured; a kill can leave others."""
    text = run_dir / "translations" / f"{name}.txt"
    known = results.get("translations_sha256")
    return known is None or not text.exists() or known == digest_of(text)
