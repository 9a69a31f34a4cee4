"""One run from its configuration: data, training, validation, evaluation."""

import dataclasses
import logging
from pathlib import Path

from nmt_ls.config import Config
from nmt_ls.config_files import differences
from nmt_ls.data.prepare import PreparedData, prepare
from nmt_ls.errors import UserError
from nmt_ls.evaluation.evaluate import (
    evaluate,
    fitted_on_validation,
    make_validator,
    test_sets,
)
from nmt_ls.evaluation.results import store_results
from nmt_ls.parallel import is_main
from nmt_ls.training.runs import LoadedRun, load_run
from nmt_ls.training.trainer import fit

log = logging.getLogger("nmt_ls")


def prepare_run(config: Config) -> PreparedData:
    """The data of a run, tokenised and cached."""
    return _inputs_of(config)[0]


def train_run(config: Config, run_dir: Path) -> int:
    """Train a run to its end, or continue it; returns its last step."""
    data, start, teacher = _inputs_of(config)
    return fit(
        config,
        data,
        run_dir,
        make_validator(config, data),
        initial_params=start.params if start else None,
        teacher=teacher,
    )


def _inputs_of(config: Config) -> tuple[PreparedData, LoadedRun | None, LoadedRun | None]:
    """(data, the run that a fine-tuning starts from, the run whose confidences graduate ε)."""
    start, teacher = _start_of(config), _teacher_of(config)
    subwords_of = start or teacher
    data = prepare(config, subwords=subwords_of.subwords if subwords_of else None, log=log.info)
    if teacher is not None and teacher.subwords.fingerprint != data.subwords.fingerprint:
        raise UserError(
            f"the loss's teacher {teacher.run_dir} has other subwords than"
            f" training.init_from={config.training.init_from}; both must share theirs"
        )
    return data, start, teacher


def _teacher_of(config: Config) -> LoadedRun | None:
    """The run whose confidences graduate ε, or that is distilled."""
    name = config.loss.graduated_run or config.loss.teacher_run
    return load_run(Path(name)) if name else None


def _start_of(config: Config) -> LoadedRun | None:
    """The run that a fine-tuning starts from."""
    if not config.training.init_from:
        return None
    start = load_run(Path(config.training.init_from))
    sizes = {"dropout", "attention_dropout", "activation_dropout", "compute", "attention"}
    for key, theirs, ours in differences(start.config, config):
        section, _, field = key.partition(".")
        if section == "model" and field not in sizes:
            raise UserError(
                f"training.init_from: {start.run_dir} has {key}={theirs!r}, this configuration"
                f" {ours!r}; a fine-tuning keeps the model's shape"
            )
    return start


def evaluate_run(run_dir: Path) -> None:
    """Evaluate a finished run on all test sets of its configuration and store the results."""
    run = load_run(run_dir)
    fitted = fitted_on_validation(run)
    for data in test_sets(run):
        evaluation = evaluate(run, data, fitted=fitted)
        if is_main():
            store_results(run_dir, data, evaluation, run.subwords)


def with_smoothing(config: Config, label_smoothing: float, seed: int) -> Config:
    """The configuration of one run of a sweep."""
    return dataclasses.replace(
        config,
        seed=seed,
        loss=dataclasses.replace(config.loss, label_smoothing=label_smoothing),
    )
