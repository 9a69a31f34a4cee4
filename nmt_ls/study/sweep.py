"""A comparison of smoothing values: which runs are missing, what they gave, what came out."""

import itertools
import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nmt_ls.config import Config
from nmt_ls.config_files import load_resolved
from nmt_ls.config_languages import bleu_tokenizer
from nmt_ls.data.subwords import Subwords
from nmt_ls.errors import UserError
from nmt_ls.evaluation.formatting import number
from nmt_ls.evaluation.tokenizers import tokenizer
from nmt_ls.parallel import is_main
from nmt_ls.study.alike import refuse_other_tests, refuse_unlike
from nmt_ls.study.comparison import VALIDATION, compare, sentence, table
from nmt_ls.study.finished import is_evaluated, is_trained, outdated
from nmt_ls.study.plan import Cell, Request, chosen, make_plan
from nmt_ls.study.plan_file import read_plan
from nmt_ls.study.protocol import described, kind_of_subwords, listed, pairs_of
from nmt_ls.study.runs import data_key, evaluate_run, refuse_other_text, train_group
from nmt_ls.study.stored import load_runs
from nmt_ls.study.truth import truth_of
from nmt_ls.study.wording import headlines
from nmt_ls.training.bookkeeping import Diverged
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
        for name in sorted({bleu_tokenizer(cell.config) for cell in missing}):
            tokenizer(name)  # before the training, not after it
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
    its decoding. Finished runs are not touched again. A shard or a single run makes no report. A
    run that diverges keeps no other from being trained, nor the report from being written.

    Args:
      config: of all runs.
      sweep_dir: where they live.
      request: which cells, and which of them this call does.

    Raises:
      UserError: as `unfinished`; what training and evaluation raise.
      Diverged: at last, if runs did.
    """
    cells = unfinished(config, sweep_dir, request)
    pace = Pace(len(cells))
    diverged: list[Diverged] = []
    for _, members in itertools.groupby(cells, key=lambda cell: cell.entry["group"]):
        try:
            _do_group(list(members), pace)
        except Diverged as error:
            diverged.append(error)
    planned = {entry["run"] for entry in read_plan(sweep_dir)}
    if lost := [cell.entry["run"] for cell in cells if cell.entry["run"] not in planned]:
        told = f"{sweep_dir / 'plan.json'} was written by another call without {', '.join(lost)}"
        log.warning("%s; run this sweep again, and its plan has them", told)
    if request.shard:
        share = f"{request.shard[0]}/{request.shard[1]}"
        log.info("shard %s is done; when all are, `nmt-ls report %s` compares", share, sweep_dir)
    reports = is_main() and not (request.only or request.shard)
    if diverged:
        if reports:
            report_of_others(sweep_dir)
        raise Diverged("; ".join(map(str, diverged)))
    return report(sweep_dir) if reports else ""


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

    Runs whose results are of other settings than their configuration has now are left out and
    named, as those that are missing are.

    Raises:
      UserError: nothing is finished yet, or runs that are to be compared were treated differently.
    """
    from nmt_ls.study.report import write_report  # matplotlib takes its time

    runs, configs = [], []
    for run in load_runs(sweep_dir):
        config = load_resolved(sweep_dir / run["run"] / "config.yaml")
        if why := outdated(sweep_dir / run["run"], config):
            log.warning("%s is left out: %s; `nmt-ls sweep` finishes it", run["run"], why)
            continue
        # Measured by hand, whenever and however: shown, but nothing is decided on them.
        run["own"] = sorted(set(run["results"]) - {*config.data.tests, VALIDATION})
        runs.append(run)
        configs.append(config)
    if not runs:
        raise UserError(f"{sweep_dir} has no finished run yet; `nmt-ls sweep` trains them")
    done = {run["run"] for run in runs}
    planned = read_plan(sweep_dir)
    missing = [entry["run"] for entry in planned if entry["run"] not in done]
    if missing:
        log.info("%d of %d runs are missing: %s", len(missing), len(planned), ", ".join(missing))
    refuse_unlike(runs, configs)
    truths: dict[str, dict[str, dict[str, Any]]] = {}
    subwords = [Subwords.load(sweep_dir / run["run"]) for run in runs]
    refuse_other_tests(runs, configs, subwords)
    for run, config, pieces in zip(runs, configs, subwords, strict=True):
        run["loss"] = config.loss.kind
        alike = f"{config.data.tests} {pieces.fingerprint} {bleu_tokenizer(config)}"
        if alike not in truths:
            truths[alike] = truth_of(config, pieces)
        run["truth"] = truths[alike]
    title = json.loads((sweep_dir / "plan.json").read_text(encoding="utf-8")).get("title", "")
    comparison = compare(runs, title=title)
    for block in comparison["pooled"].values():
        if block["left_out"]:
            told = "do not count in %s: they lack one of its test sets (`nmt-ls sweep` measures it)"
            log.warning("%s " + told, ", ".join(block["left_out"]), block["test"])
    protocol = described(configs, [run["settings"] for run in runs], runs[0]["truth"])
    protocol["subwords"] = listed(
        f"{pieces.target_size} {kind_of_subwords(config)}"
        for config, pieces in zip(configs, subwords, strict=True)
    )
    protocol["training pairs"] = listed(pairs_of(sweep_dir / run["run"]) for run in runs)
    write_report(sweep_dir, comparison, runs, title=title, protocol=protocol)
    blocks = []
    for test in comparison["tests"]:
        blocks.append(f"{test}\n{table(comparison, test)}")
        if len(comparison["tests"]) > 1:  # of a single one the headline says the same
            blocks[-1] += f"\n{sentence(comparison, test)}"
    return "\n\n".join([*blocks, *headlines(comparison)])


def report_of_others(sweep_dir: Path) -> None:
    """Where some runs have failed: the report of those that are finished, if there are any."""
    if load_runs(sweep_dir):
        try:
            report(sweep_dir)
        except UserError as error:  # why the others failed is to be said last
            log.warning("%s", error)
        else:
            log.info("the others are compared in %s", sweep_dir / "report.md")
