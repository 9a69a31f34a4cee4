"""`nmt-ls sweep`: its options checked, its runs done here or in processes of their own."""

import argparse
import logging
import math
import sys
from collections.abc import Sequence
from typing import Any

from nmt_ls.errors import UserError

log = logging.getLogger("nmt_ls")


def sweep(arguments: argparse.Namespace) -> None:
    """`nmt-ls sweep`: print the comparison of what is trained and evaluated here or already there.

    Raises:
      UserError: an option that makes no sense; what `study.sweep.sweep` raises.
    """
    from nmt_ls.config_files import load_config
    from nmt_ls.study import sweep as study
    from nmt_ls.study.grid import parse_grid
    from nmt_ls.study.jobs import JobFailed
    from nmt_ls.study.plan import Request, parse_shard

    config = load_config(arguments.config, arguments.set)
    most = 1 if config.loss.kind == "label_smoothing" else math.inf
    for value in arguments.smoothing or ():
        if not 0 <= value <= most:
            raise UserError(f"--smoothing {value} is outside [0, {most}]")
    if arguments.seeds is not None and arguments.seeds < 1:
        raise UserError(f"--seeds {arguments.seeds}: at least 1")
    if arguments.jobs < 1:
        raise UserError(f"--jobs {arguments.jobs}: at least 1")
    if arguments.shard and arguments.only:
        raise UserError("--shard and --only exclude each other")
    request = Request(
        arguments.smoothing,
        arguments.seeds,
        parse_grid(arguments.grid) if arguments.grid else None,
        parse_shard(arguments.shard) if arguments.shard else None,
        arguments.only,
    )
    if not arguments.only:  # or each of several processes would say the same
        _warn_of_unused(config, request)
    if arguments.jobs > 1 and not arguments.only:
        try:
            _sweep_in_jobs(arguments, study.unfinished(config, arguments.run_dir, request))
        except JobFailed as error:
            if not error.interrupted and not request.shard:
                study.report_of_others(arguments.run_dir)
            raise
    table = study.sweep(config, arguments.run_dir, request)
    if table:
        print(table)


def _warn_of_unused(config: Any, request: Any) -> None:
    """Say which settings none of the runs that are asked for reads."""
    from nmt_ls.config_files import with_settings
    from nmt_ls.config_unused import check_unused
    from nmt_ls.study.grid import combinations

    grid = config.sweep.grid if request.grid is None else request.grid
    varied = combinations(config, grid)
    for line in check_unused([with_settings(config, s, expand=True) for s in varied]):
        log.warning("%s", line)


def _sweep_in_jobs(arguments: argparse.Namespace, cells: Sequence[Any]) -> None:
    """Train and evaluate a sweep's runs in processes of their own."""
    from nmt_ls.study.jobs import run_jobs
    from nmt_ls.study.runs import prepare_runs
    from nmt_ls.study.sweep import Pace

    prepare_runs([cell.config for cell in cells])  # once, and not by each at the same time
    command = [sys.executable, "-m", "nmt_ls.cli", "sweep", str(arguments.config)]
    command += ["--run-dir", str(arguments.run_dir)]
    for override in arguments.set:
        command += ["--set", override]
    if arguments.smoothing:
        command += ["--smoothing", *map(str, arguments.smoothing)]
    for option in arguments.grid:
        command += ["--grid", option]
    if arguments.seeds is not None:
        command += ["--seeds", str(arguments.seeds)]
    pace = Pace(len(cells))

    def ended_well(name: str) -> None:
        pace.step()
        log.info("%s is done%s", name, pace.left())

    names = [cell.entry["run"] for cell in cells]
    run_jobs(names, lambda name: [*command, "--only", name], arguments.jobs, ended_well)
