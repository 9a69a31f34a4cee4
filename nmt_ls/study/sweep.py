"""A comparison of smoothing values: which runs it needs, which are missing, what came out."""

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any

from nmt_ls.config import Config, LossConfig
from nmt_ls.config_files import load_resolved
from nmt_ls.data.subwords import Subwords
from nmt_ls.errors import UserError
from nmt_ls.parallel import is_main
from nmt_ls.study.comparison import compare, sentence, table
from nmt_ls.study.runs import evaluate_run, train_run, with_smoothing
from nmt_ls.study.truth import truth_of
from nmt_ls.training.runs import write_beside

log = logging.getLogger("nmt_ls")


def run_name(label_smoothing: float, seed: int) -> str:
    """The directory of one run within its sweep."""
    return f"smoothing_{label_smoothing}_seed_{seed}"


def plan(
    config: Config, sweep_dir: Path, smoothing: list[float] | None, seeds: int | None
) -> list[dict[str, Any]]:
    """The runs of a sweep, written to plan.json before the first step; earlier ones stay in it.

    Raises:
      UserError: the directory is something else's; the loss has no ε.
    """
    path = sweep_dir / "plan.json"
    if config.loss.kind != "label_smoothing":
        raise UserError(
            f"loss.kind={config.loss.kind} has no ε to compare values of; a sweep needs "
            "loss.kind=label_smoothing"
        )
    if sweep_dir.exists() and any(sweep_dir.iterdir()) and not path.exists():
        others = [p for p in sweep_dir.iterdir() if not p.name.startswith("smoothing_")]
        if others:
            raise UserError(f"{sweep_dir} is not empty and has no plan.json; choose another")
    values = [float(v) for v in (config.sweep.smoothing if smoothing is None else smoothing)]
    count = config.sweep.seeds if seeds is None else seeds
    runs = json.loads(path.read_text())["runs"] if path.exists() else []
    known = {run["run"] for run in runs}
    for seed in range(config.seed, config.seed + count):
        for value in values:
            name = run_name(value, seed)
            if name not in known:
                runs.append({"run": name, "label_smoothing": value, "seed": seed})
                known.add(name)
    sweep_dir.mkdir(parents=True, exist_ok=True)
    title = config.name or sweep_dir.resolve().name
    write_beside(path, json.dumps({"title": title, "runs": runs}, indent=1) + "\n")
    return runs


def sweep(
    config: Config,
    sweep_dir: Path,
    smoothing: list[float] | None = None,
    seeds: int | None = None,
    only: str = "",
) -> str:
    """Train and evaluate every (ε, seed) that is missing; write the report; returns the tables.

    Every ε gets the same treatment: the configuration's number of steps, its checkpoint rule and
    its decoding. Finished runs are not touched again.

    Args:
      config: of all runs.
      sweep_dir: where they live.
      smoothing, seeds: values of ε and runs of each; None: the configuration's.
      only: do this run alone, and no report.

    Raises:
      UserError: no run of that name; what `plan`, training and evaluation raise.
    """
    runs = plan(config, sweep_dir, smoothing, seeds)
    if only and only not in [run["run"] for run in runs]:
        raise UserError(f"--only {only}: the plan has {', '.join(run['run'] for run in runs)}")
    for number, run in enumerate(runs, 1):
        if only not in ("", run["run"]):
            continue
        run_dir = sweep_dir / run["run"]
        one = with_smoothing(config, run["label_smoothing"], run["seed"])
        log.info("run %d of %d: %s", number, len(runs), run["run"])
        train_run(one, run_dir)
        if not _is_evaluated(run_dir, one):
            evaluate_run(run_dir)
    return report(sweep_dir) if is_main() and not only else ""


def _is_evaluated(run_dir: Path, config: Config) -> bool:
    path = run_dir / "results.json"
    if not path.exists():
        return False
    done = json.loads(path.read_text())
    averaged = (run_dir / "checkpoints" / "average").is_dir()
    # `evaluate` may since have measured another checkpoint or with another beam.
    return all(
        name in done
        and done[name]["decode"] == _plain(config.decoding)
        and done[name]["checkpoint"].startswith("average") == averaged
        for name in config.data.tests
    )


def _plain(settings: Any) -> Any:
    return json.loads(json.dumps(dataclasses.asdict(settings)))


def report(sweep_dir: Path) -> str:
    """Rebuild a sweep's report from what its runs stored; returns the tables.

    Raises:
      UserError: nothing is finished yet.
    """
    from nmt_ls.study.report import load_runs, write_report  # matplotlib takes its time

    runs = load_runs(sweep_dir)
    if not runs:
        raise UserError(f"{sweep_dir} has no finished run yet; `nmt-ls sweep` trains them")
    first = sweep_dir / runs[0]["run"]
    config = load_resolved(first / "config.yaml")
    truth = truth_of(config, Subwords.load(first))
    comparison = compare(runs, truth=truth)
    title = json.loads((sweep_dir / "plan.json").read_text())["title"]
    write_report(sweep_dir, comparison, runs, title=title, protocol=_protocol(config, truth))
    blocks = []
    for test in comparison["tests"]:
        blocks.append(f"{test}\n{table(comparison, test)}\n{sentence(comparison, test)}")
    return "\n\n".join(blocks)


def _protocol(config: Config, truth: dict[str, dict[str, Any]]) -> dict[str, Any]:
    t = config.training
    if t.patience:
        stopping = f"early stopping on {t.best_metric}, patience {t.patience}"
    else:
        stopping = f"{t.max_steps} steps for every ε, no early stopping"
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
    for name, values in truth.items():
        protocol[f"{name}: sentences that the grammar has"] = f"{values['sentences_in_all']:,}"
    return protocol


def _other_settings_of_the_loss(config: Config) -> dict[str, str]:
    ours, default = (dataclasses.asdict(c) for c in (config.loss, LossConfig()))
    told = {"label_smoothing", "convention"}
    changed = {k: v for k, v in ours.items() if v != default[k] and k not in told}
    return {f"loss.{name}": str(value) for name, value in changed.items()}
