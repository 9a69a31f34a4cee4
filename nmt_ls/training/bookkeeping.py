"""What a run counts and writes while it trains: records, validations, checkpoints."""

import json
import logging
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from nmt_ls.compilation import CompilationCounter
from nmt_ls.config import Config
from nmt_ls.config_languages import DEFAULT_TOKENIZER, bleu_tokenizer
from nmt_ls.data.batches import Batch, BatchPlan
from nmt_ls.data.evaluation_sets import EvaluationSet
from nmt_ls.losses import scheduled_smoothing
from nmt_ls.messages import unheard
from nmt_ls.outputs import write_beside
from nmt_ls.parallel import is_main, of_main_host
from nmt_ls.training.checkpoints import Checkpoints
from nmt_ls.training.metrics import MetricsLog
from nmt_ls.training.progress import Interval, Progress, line_of
from nmt_ls.training.runs import regular_steps
from nmt_ls.training.step import StepSums, TrainState

log = logging.getLogger("nmt_ls")

Validate = Callable[[dict[str, np.ndarray], int], dict[str, float]]
"""(parameters, step) → what to record; `perplexity`, and `bleu` where it is the best metric."""


DIVERGED = "diverged.json"
"""In a run directory: why the run went no further while others trained beside it did."""


class Diverged(Exception):
    """Gradients were not finite for too many steps in a row."""


def strength_of(config: Config, step: int) -> float:
    """ε of a step (counted from 0), or β where the loss has one."""
    loss = config.loss
    if loss.kind != "label_smoothing":
        return loss.beta
    return scheduled_smoothing(
        step,
        config.training.max_steps,
        loss.label_smoothing,
        loss.final_label_smoothing,
        loss.schedule,
    )


class Bookkeeping:
    """The host's side of one run.

    Args:
      config: all that decides the run.
      run_dir: begun by `open_run`.
      validate: called with the parameters on the host.
      checkpoints: of the run.
      progress: how far it is.
      plan: of its batches.
      held_out: what `validate` reads.
    """

    def __init__(
        self,
        config: Config,
        run_dir: Path,
        validate: Validate | None,
        checkpoints: Checkpoints,
        progress: Progress,
        plan: BatchPlan,
        held_out: EvaluationSet | None = None,
    ):
        self.config, self.run_dir, self.checkpoints = config, run_dir, checkpoints
        self.progress, self.plan = progress, plan
        self.validate = validate if config.training.validate_every else None
        if self.validate is not None and not self.finished:
            fingerprint = held_out.fingerprint if held_out is not None else ""
            metric = config.training.best_metric
            if metric == "bleu" and (split := bleu_tokenizer(config)) != DEFAULT_TOKENIZER:
                fingerprint += f" {split}"
            progress.will_measure(metric, fingerprint)
        self.strength = "label_smoothing" if config.loss.kind == "label_smoothing" else "beta"
        self.compilations = CompilationCounter()
        self.interval = Interval()
        self.metrics: MetricsLog | None = None
        self.diverged: Diverged | None = None
        """Why the run goes no further, where others go on without it."""

    @property
    def finished(self) -> bool:
        """Whether nothing is left to train."""
        return self.progress.over(self.config.training)

    def open(self) -> None:
        """Forget what metrics.jsonl has of later steps, and go on with it."""
        if is_main():
            path, tensorboard = self.run_dir / "metrics.jsonl", self.config.training.tensorboard
            self.metrics = MetricsLog(path, self.progress.step, tensorboard=tensorboard)
        self.interval = Interval()

    def close(self) -> None:
        """Close metrics.jsonl."""
        if self.metrics is not None:
            self.metrics.close()

    def see_batch(self, batch: Batch) -> None:
        """Count a batch's padding."""
        self.interval.see_batch(batch)

    def see_sums(self, done: int, values: StepSums) -> None:
        """Take a step's sums, on the host.

        Raises:
          Diverged: too many steps in a row had no finite gradient.
        """
        self.interval.see_sums(values)
        self.progress.tokens += int(values.tokens)
        skipped = int(values.skipped)
        self.progress.skipped += bool(skipped)
        if skipped >= self.config.training.max_skipped:
            began = done - skipped + 1
            raise Diverged(
                f"gradients have not been finite since step {began} ({skipped} steps in a row);"
                " lower training.learning_rate, or set training.clip_norm"
            )

    def begin_record(self, done: int) -> dict[str, Any]:
        """A record of this step, with nothing measured yet."""
        epoch, position = self.plan.epoch_of(done)
        part = position / self.plan.steps_in(epoch)
        return {"step": done, "epoch": round(epoch + part, 4)}

    def measured(self, done: int, compilations: int) -> dict[str, Any]:
        """What was measured since the last call; starts a new interval."""
        record = self.interval.record() | {
            self.strength: strength_of(self.config, done - 1),
            "target_tokens_total": self.progress.tokens,
            "skipped_total": self.progress.skipped,
            "compilations": compilations,
            "compilation_cache_misses": self.compilations.misses,
        }
        self.interval = Interval()
        return record

    def validated(
        self, done: int, params: dict[str, np.ndarray], record: dict[str, Any], name: str = ""
    ) -> bool:
        """Add a validation to the record; whether it is the best so far. `name` begins its line."""
        assert self.validate is not None
        # Each host measures for itself, to the last bit perhaps otherwise, and all must agree on
        # what was best and when to stop.
        measured = of_main_host(self.validate(params, done))
        record |= {f"validation_{metric}": value for metric, value in measured.items()}
        training = self.config.training
        value = measured[training.best_metric]
        improved = self.progress.see_validation(done, value, training)
        text = ", ".join(f"{k} {v:.4g}" for k, v in measured.items() if isinstance(v, float))
        if is_main():
            mark = " *" if improved else ""
            with unheard():
                tqdm.write(f"{name}step {done}: validation {text}{mark}", file=sys.stderr)
        return improved

    def write(self, record: dict[str, Any], *, to_log: bool = False, name: str = "") -> None:
        """A record to metrics.jsonl, and as a line to the log where there is no progress bar."""
        if self.metrics is not None:
            self.metrics.write(record)
            if to_log:
                log.info(name + line_of(record, self.config.training.max_steps))

    @property
    def exhausted(self) -> bool:
        """Whether patience has run out."""
        return self.progress.exhausted(self.config.training)

    def give_up(self, done: int, error: Diverged) -> None:
        """Note that the run goes no further, also for later calls."""
        self.diverged = error
        if is_main():
            note = {"step": done, "message": str(error)}
            write_beside(self.run_dir / DIVERGED, json.dumps(note) + "\n")

    def checkpoint(self, done: int, state: dict[str, Any]) -> None:
        """Begin to write a checkpoint; `state` from `as_saved`."""
        if self.metrics is not None:
            self.metrics.sync()
        self.checkpoints.save(done, state, self.progress.as_dict())

    def forget_old(self, whole: list[int] | None = None) -> None:
        """Delete checkpoints that are neither among the last nor among the best.

        Goes by those that are whole: until the one being written is, an older one may be needed.

        Args:
          whole: steps whose checkpoints count as whole, where others must have them too; newer
            ones stay. None: the run's own.
        """
        mine = self.checkpoints.steps()
        whole = mine if whole is None else whole
        if not is_main() or not whole:
            return
        training = self.config.training
        regular = regular_steps(whole, self.config)[-training.keep_last :]
        best = self.progress.best_steps(mine, training)[: training.keep_best]
        newer = [step for step in mine if step > whole[-1]]
        self.checkpoints.delete(set(mine) - {*regular, *best, whole[-1], *newer})


def as_saved(state: TrainState) -> dict[str, Any]:
    """A state as it is written."""
    saved = state._asdict()
    if not state.ema:  # orbax has no use for an empty tree
        del saved["ema"]
    return saved
