"""A comparison of smoothing values: which runs are missing, what they gave, what came out."""

import dataclasses
import itertools
import json
import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nmt_ls.config import Config, LossConfig
from nmt_ls.config_files import load_resolved
from nmt_ls.data.subwords import Subwords
from nmt_ls.errors import UserError
from nmt_ls.evaluation.formatting import number
from nmt_ls.parallel import is_main
from nmt_ls.study.comparison import compare, sentence, table
from nmt_ls.study.plan import Cell, Request, chosen, make_plan
from nmt_ls.study.plan_file import read_plan
from nmt_ls.study.runs import (
    data_key,
    evaluate_run,
    is_evaluated,
    is_trained,
    refuse_other_text,
    train_group,
)
from nmt_ls.study.stored import load_runs
from nmt_ls.study.strength import STRENGTHS
from nmt_ls.study.truth import truth_of
from nmt_ls.study.wording import headlines
from nmt_ls.training.opening import check_settings

log = logging.getLogger("nmt_ls")


def unfinished(config: Config, sweep_dir: Path, request: Request) -> list[Cell]:
    """The cells that a call has to do, group by group; all of the plan is in plan.json.

    Raises:
      UserError: as `plan.make_plan` and `plan.chosen`; a run's directory belongs to another
        configuration, or was trained on other text.
    """

    if not config.data.tests:
        raise UserError("data.tests is empty: name a test set that a sweep can measure")

    missing: list[Cell] = []

    def check(cells: Sequence[Cell]) -> None:
        mine = chosen(cells, request)
        concerned = mine if request.only else cells
        for cell in concerned:
            check_settings(cell.run_dir, cell.config)
        missing[:] = [cell for cell in mine if not _is_finished(cell)]
        # Finished runs are not opened again, but new ones must not be compared with them if the
        # text has changed.
        keys = [data_key(cell.config) for cell in concerned]
        for key, cell in {data_key(cell.config): cell for cell in missing}.items():
            alike = [c.run_dir for c, k in zip(concerned, keys, strict=True) if k == key]
            refuse_other_text(alike, cell.config)

    make_plan(config, sweep_dir, request, check)
    return missing


def _is_finished(cell: Cell) -> bool:
    return is_trained(cell.run_dir, cell.config) and is_evaluated(cell.run_dir, cell.config)


def sweep(
    config: Config,
    sweep_dir: Path,
    request: Request = Request(),  # noqa: B008 - immutable
) -> str:
    """Train and evaluate every cell that is missing; write the report; returns the tables.

    Every ε gets the same treatment: the configuration's number of steps, its checkpoint rule and
    its decoding. Finished runs are not touched again. A shard or a single run makes no report.

    Args:
      config: of all runs.
      sweep_dir: where they live.
      request: which cells, and which of them this call does.

    Raises:
      UserError: as `unfinished`; what training and evaluation raise.
    """
    cells = unfinished(config, sweep_dir, request)
    pace = Pace(len(cells))
    for _, members in itertools.groupby(cells, key=lambda cell: cell.entry["group"]):
        _do_group(list(members), pace)
    planned = {entry["run"] for entry in read_plan(sweep_dir)}
    if lost := [cell.entry["run"] for cell in cells if cell.entry["run"] not in planned]:
        told = f"{sweep_dir / 'plan.json'} was written by another call without {', '.join(lost)}"
        log.warning("%s; run this sweep again, and its plan has them", told)
    if request.shard:
        share = f"{request.shard[0]}/{request.shard[1]}"
        log.info("shard %s is done; when all are, `nmt-ls report %s` compares", share, sweep_dir)
    return report(sweep_dir) if is_main() and not (request.only or request.shard) else ""


def _do_group(cells: Sequence[Cell], pace: "Pace") -> None:
    """Train and evaluate cells of one group."""

    def finish(cell: Cell) -> None:
        if not is_evaluated(cell.run_dir, cell.config):
            evaluate_run(cell.run_dir)
        took = pace.step()
        log.info("%s: %s; %.1f min%s", cell.entry["run"], _found(cell), took / 60, pace.left())

    untrained = [cell for cell in cells if not _needs_only_evaluation(cell)]
    for cell in cells:
        if cell not in untrained:
            finish(cell)
    if untrained:
        train_group(
            [cell.entry for cell in untrained],
            [cell.config for cell in untrained],
            [cell.run_dir for cell in untrained],
            lambda place: finish(untrained[place]),
        )


def _needs_only_evaluation(cell: Cell) -> bool:
    # Another decoding or test set reaches the run's config.yaml as training is taken up.
    return (
        is_trained(cell.run_dir, cell.config)
        and load_resolved(cell.run_dir / "config.yaml") == cell.config
    )


def _found(cell: Cell) -> str:
    """The main figures of a finished run, by test set."""
    results = json.loads((cell.run_dir / "results.json").read_text(encoding="utf-8"))
    measures = {"BLEU": ("bleu", 2), "perplexity": ("perplexity", 3), "ECE": ("ece", 4)}
    return "; ".join(
        f"{test}: "
        + ", ".join(
            f"{word} {number(results[test][name], digits)}"
            for word, (name, digits) in measures.items()
        )
        for test in cell.config.data.tests
    )


class Pace:
    """How long runs take, and how long the others will.

    Args:
      count: runs that are to be done.
    """

    def __init__(self, count: int):
        self.count, self.done = count, 0
        self.began = self.before = time.monotonic()

    def step(self) -> float:
        """One more is done; returns the seconds since the one before."""
        self.done += 1
        before, self.before = self.before, time.monotonic()
        return self.before - before

    def left(self) -> str:
        """`; 2 of 6 done, about 24.6 min left`, by the mean of those done; empty for the last."""
        if self.done == self.count:
            return ""
        seconds = (self.before - self.began) / self.done * (self.count - self.done)
        return f"; {self.done} of {self.count} done, about {seconds / 60:.1f} min left"


def report(sweep_dir: Path) -> str:
    """Rebuild a sweep's report from what its runs stored; returns the tables.

    Raises:
      UserError: nothing is finished yet.
    """
    from nmt_ls.study.report import write_report  # matplotlib takes its time

    runs = load_runs(sweep_dir)
    if not runs:
        raise UserError(f"{sweep_dir} has no finished run yet; `nmt-ls sweep` trains them")
    done = {run["run"] for run in runs}
    planned = read_plan(sweep_dir)
    missing = [entry["run"] for entry in planned if entry["run"] not in done]
    if missing:
        log.info("%d of %d runs are missing: %s", len(missing), len(planned), ", ".join(missing))
    first = sweep_dir / runs[0]["run"]
    configs = [load_resolved(sweep_dir / run["run"] / "config.yaml") for run in runs]
    truth = truth_of(configs[0], Subwords.load(first))
    for run, config in zip(runs, configs, strict=True):
        run["loss"] = config.loss.kind
    title = json.loads((sweep_dir / "plan.json").read_text(encoding="utf-8")).get("title", "")
    comparison = compare(runs, truth=truth, title=title)
    protocol = _protocol(configs, [run["settings"] for run in runs], truth)
    protocol["training pairs"] = _listed(_pairs(sweep_dir / run["run"]) for run in runs)
    write_report(sweep_dir, comparison, runs, title=title, protocol=protocol)
    blocks = []
    for test in comparison["tests"]:
        blocks.append(f"{test}\n{table(comparison, test)}")
        if len(comparison["tests"]) > 1:  # of a single one the headline says the same
            blocks[-1] += f"\n{sentence(comparison, test)}"
    return "\n\n".join([*blocks, *headlines(comparison)])


def _protocol(
    configs: Sequence[Config],
    settings: Sequence[Mapping[str, Any]],
    truth: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """How the runs were made; what differs between them is listed."""
    protocol: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in settings for key in one):
        protocol[f"grid of {key}"] = _listed(one[key] for one in settings if key in one)
    protocol |= _merged([_protocol_of(config) for config in configs])
    protocol["seeds"] = _listed(config.seed for config in configs)
    for name, values in truth.items():
        protocol[f"{name}: sentences that the grammar has"] = f"{values['sentences_in_all']:,}"
    return protocol


def _pairs(run_dir: Path) -> str:
    found = json.loads((run_dir / "data.json").read_text(encoding="utf-8"))
    return f"{found['pairs_kept']:,} of {found['pairs_read']:,}"


def _merged(protocols: Sequence[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in protocols for key in one):
        found = [one[key] for one in protocols if key in one]
        if all(isinstance(value, dict) for value in found):
            merged[key] = _merged(found)
        else:
            merged[key] = found[0] if found.count(found[0]) == len(found) else _listed(found)
    return merged


def _listed(values: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(map(str, values)))


def _protocol_of(config: Config) -> dict[str, Any]:
    t, symbol = config.training, STRENGTHS[config.loss.kind].symbol
    if t.patience:
        stopping = f"early stopping on {t.best_metric}, patience {t.patience}"
    else:
        stopping = f"{t.max_steps} steps for every {symbol}, no early stopping"
    average = f"average of the last {t.average_last} checkpoints, {t.checkpoint_every} steps apart"
    protocol: dict[str, Any] = {
        "steps": stopping,
        "checkpoint rule": average if t.average_last else f"best by {t.best_metric}",
        "languages": f"{config.data.source_language} → {config.data.target_language}",
        "smoothing convention": config.loss.convention,
        **_other_settings_of_the_loss(config),
        "subwords": f"{config.subwords.vocab_size} {config.subwords.algorithm}",
        "model": {
            name: getattr(config.model, name)
            for name in ("encoder_layers", "decoder_layers", "width", "feed_forward", "dropout")
        },
        "batch": f"{t.batch_tokens} target positions",
        "learning rate": f"{t.learning_rate:g}, {t.schedule}, {t.warmup_steps} warm-up steps",
    }
    if config.loss.kind != "label_smoothing":
        protocol[symbol] = f"loss.beta of {config.loss.kind}"
    return protocol


def _other_settings_of_the_loss(config: Config) -> dict[str, str]:
    ours, default = (dataclasses.asdict(c) for c in (config.loss, LossConfig()))
    told = {"label_smoothing", "beta", "convention"}
    changed = {k: v for k, v in ours.items() if v != default[k] and k not in told}
    return {f"loss.{name}": str(value) for name, value in changed.items()}
