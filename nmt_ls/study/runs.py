"""Runs from their configurations: data, training, validation, evaluation."""

import dataclasses
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nmt_ls.compilation import CompilationCounter
from nmt_ls.config import Config
from nmt_ls.config_files import differences, load_resolved
from nmt_ls.data.prepare import PreparedData, prepare
from nmt_ls.errors import UserError
from nmt_ls.evaluation.evaluate import evaluate, fitted_on_validation, make_validator, test_sets
from nmt_ls.evaluation.results import store_results
from nmt_ls.evaluation.training_sample import training_sample
from nmt_ls.evaluation.training_words import training_word_counts
from nmt_ls.parallel import barrier, is_main
from nmt_ls.study.finished import averaged, to_average
from nmt_ls.training.bookkeeping import Diverged
from nmt_ls.training.groups import Member, groups_of
from nmt_ls.training.opening import begun_subwords, check_data, check_settings
from nmt_ls.training.population import SomeDiverged, fit_population
from nmt_ls.training.runs import LoadedRun, average_run, load_run
from nmt_ls.training.trainer import fit

log = logging.getLogger("nmt_ls")


def prepare_runs(configs: Sequence[Config]) -> None:
    """Tokenise and cache the data of runs, each only once: what several processes will need."""
    for config in {data_key(config): config for config in configs}.values():
        _inputs_of(config)


def data_key(config: Config) -> str:
    """What says which text and which subwords a run is trained on."""
    parts = [dataclasses.asdict(config.data), dataclasses.asdict(config.subwords)]
    runs = [config.training.init_from, config.loss.graduated_run, config.loss.teacher_run]
    return json.dumps([*parts, *runs])


def refuse_other_text(run_dirs: Sequence[Path], config: Config) -> None:
    """Nothing, unless runs were begun on other text than a configuration gives now.

    Args:
      run_dirs: of runs with the same `data_key`; those that were not begun do not count.
      config: of a run that is to be trained.

    Raises:
      UserError: one was, or its subwords were others.
    """
    # One without a checkpoint would be begun anew.
    begun = [run_dir for run_dir in run_dirs if begun_subwords(run_dir) is not None]
    if not begun:
        return
    data = _inputs_of(config, begun)[0]
    for run_dir in begun:
        check_data(run_dir, config, data)


def train_run(config: Config, run_dir: Path) -> int:
    """Train a run to its end, or continue it; returns its last step. Raises what `fit` raises."""
    if is_main():
        check_settings(run_dir, config)  # before the text is split with another run's subwords
    data, start, teacher = _inputs_of(config, [run_dir])
    return fit(
        config,
        data,
        run_dir,
        make_validator(config, data),
        initial_params=start.params if start else None,
        teacher=teacher,
    )


def train_group(
    cells: Sequence[Mapping[str, Any]],
    configs: Sequence[Config],
    run_dirs: Sequence[Path],
    trained: Callable[[int], None] | None = None,
) -> None:
    """Train runs of one group of a sweep to their ends, or continue them, as one program.

    Args:
      cells: their entries in plan.json, of the same `group`; finished ones are left out.
      configs, run_dirs: of each.
      trained: called with a run's place in `cells` when its training has ended.

    Raises:
      Diverged: runs did; the others are trained and have been told of.
      What `fit_population` raises.
    """
    inputs: dict[str, tuple] = {}
    members = []
    for config, run_dir in zip(configs, run_dirs, strict=True):
        key = data_key(config)
        if key not in inputs:
            alike = [d for c, d in zip(configs, run_dirs, strict=True) if data_key(c) == key]
            inputs[key] = _inputs_of(config, alike)
        data, start, teacher = inputs[key]
        params = start.params if start else None
        validate = make_validator(config, data)
        members.append(Member(config, data, run_dir, validate, params, teacher))
    places = {run_dir: place for place, run_dir in enumerate(run_dirs)}
    diverged: list[Diverged] = []
    for group in groups_of(members):
        names = ", ".join(cells[places[m.run_dir]]["run"] for m in group)
        together = " as one program" if len(group) > 1 else ""
        log.info("training %s%s", names, together)
        failed: dict[Path, str] = {}
        began, programs = time.monotonic(), CompilationCounter()
        try:
            fit_population(group)
        except SomeDiverged as error:
            diverged.append(error)
            failed = error.reasons
        except Diverged as error:
            diverged.append(error)
            failed = {group[0].run_dir: str(error)}
        if len(group) > 1:
            log.info(
                "%d runs trained together in %.1f min; %d programs compiled for all of them",
                len(group), (time.monotonic() - began) / 60, programs.misses,
            )  # fmt: skip
        for m in group:
            if trained is not None and m.run_dir not in failed:
                trained(places[m.run_dir])
    if diverged:
        raise diverged[0] if len(diverged) == 1 else Diverged("; ".join(map(str, diverged)))


def _inputs_of(
    config: Config, run_dirs: Sequence[Path] = ()
) -> tuple[PreparedData, LoadedRun | None, LoadedRun | None]:
    """(data, the run that a fine-tuning starts from, the run whose confidences graduate ε).

    `run_dirs` are those of runs with these inputs: one that has begun has their subwords.
    """
    start, teacher = _start_of(config), _teacher_of(config)
    given = start or teacher
    begun = next(filter(None, map(begun_subwords, run_dirs)), None)
    data = prepare(config, subwords=given.subwords if given else None, begun=begun, log=log.info)
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
    """Evaluate a finished run on all test sets of its configuration and store the results.

    The checkpoint is what the configuration says, whatever `nmt-ls average` has made since: every
    run of a comparison is to have the same rule.
    """
    config = load_resolved(run_dir / "config.yaml")
    last = config.training.average_last
    if last and averaged(run_dir) != to_average(run_dir, config):
        log.info("%s: averaged anew, the last %d as all runs", run_dir.name, last)
        if is_main():
            average_run(run_dir, last)
        barrier("averaged anew")
    run = load_run(run_dir, "average" if last else "best")
    fitted, training = fitted_on_validation(run), training_sample(run)
    frequencies = training_word_counts(run)
    for data in test_sets(run):
        evaluation = evaluate(run, data, fitted=fitted, frequencies=frequencies, training=training)
        if is_main():
            store_results(run_dir, data, evaluation, run.subwords)
