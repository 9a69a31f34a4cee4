"""The training loop: resume, step, log, validate, checkpoint, stop."""

import logging
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from nmt_ls.compilation import CompilationCounter
from nmt_ls.config import Config
from nmt_ls.data.batches import Batch, Batches
from nmt_ls.data.prepare import PreparedData
from nmt_ls.data.resampling import resampler
from nmt_ls.errors import UserError
from nmt_ls.losses import scheduled_smoothing
from nmt_ls.model import DropoutRates
from nmt_ls.parallel import barrier, is_main, to_host
from nmt_ls.training.checkpoints import Checkpoints
from nmt_ls.training.interruption import Interrupted, collect_signals
from nmt_ls.training.metrics import MetricsLog
from nmt_ls.training.objective import loss_data
from nmt_ls.training.optimizer import Hyperparameters
from nmt_ls.training.programs import compiled_step, decisive
from nmt_ls.training.progress import Interval, Progress, line_of
from nmt_ls.training.runs import LoadedRun, average_run, open_run, regular_steps, save_prior
from nmt_ls.training.step import (
    StepSums,
    TrainState,
    evaluated_params,
    initial_state,
    state_from,
)

log = logging.getLogger("nmt_ls")

Validate = Callable[[dict[str, np.ndarray], int], dict[str, float]]
"""(parameters, step) → what to record; `perplexity`, and `bleu` where it is the best metric."""


class Diverged(Exception):
    """Gradients were not finite for too many steps in a row."""


def fit(
    config: Config,
    data: PreparedData,
    run_dir: Path,
    validate: Validate | None = None,
    *,
    initial_params: dict[str, np.ndarray] | None = None,
    teacher: LoadedRun | None = None,
) -> int:
    """Train a run to its end, or from wherever it was; returns the last step.

    Args:
      config: all that decides the run.
      data: from `prepare`.
      run_dir: made here, or begun by an earlier call with the same configuration.
      validate: called every `training.validate_every` steps.
      initial_params: where a fine-tuning starts.
      teacher: the run of `loss.graduated_run`.

    Raises:
      UserError: the directory belongs to another configuration; the batch does not fit in memory.
      Interrupted: after SIGTERM or Ctrl-C.
      Diverged: after `training.max_skipped` steps in a row without a finite gradient.
    """
    if is_main():
        open_run(run_dir, config, data)
    barrier("run directory")
    checkpoints = Checkpoints(run_dir / "checkpoints")
    checkpoints.clear_unfinished()
    try:
        trainer = _Trainer(config, data, run_dir, validate, initial_params, teacher, checkpoints)
        before = trainer.progress.step
        trainer.run()
        checkpoints.wait()
        trainer.forget_old()
    finally:
        checkpoints.close()
    moved = trainer.progress.step > before or not (checkpoints.directory / "average").exists()
    if is_main() and config.training.average_last and moved:
        average_run(run_dir, config.training.average_last)
    barrier("average")
    return trainer.progress.step


class _Trainer:
    def __init__(
        self,
        config: Config,
        data: PreparedData,
        run_dir: Path,
        validate: Validate | None,
        initial_params: dict[str, np.ndarray] | None,
        teacher: LoadedRun | None,
        checkpoints: Checkpoints,
    ):
        self.config, self.run_dir, self.checkpoints = config, run_dir, checkpoints
        self.validate = validate if config.training.validate_every else None
        subwords = data.subwords
        sizes = (subwords.source_size, subwords.target_size)
        self.parallel, self.step = compiled_step(
            *decisive(config), sizes, subwords.bos, subwords.pad,
            teacher.config.model if teacher is not None else None,
        )  # fmt: skip
        self.batches = Batches(
            data.train,
            batch_tokens=config.training.batch_tokens,
            shapes=config.training.shapes,
            seed=config.seed,
            pad=subwords.pad,
            row_multiple=self.parallel.count * config.training.accumulation,
            resample=resampler(data) if config.subwords.sampling_candidates > 1 else None,
        )
        if initial_params is None:
            state = initial_state(config.model, config.training, sizes, config.seed)
        else:
            state = state_from(jax.tree.map(jax.numpy.asarray, initial_params), config.training)
        self.progress = Progress()
        self.state = state
        found = checkpoints.restore(_as_saved(state))
        if found is not None:
            _, saved, host = found
            self.state = _from_saved(saved, state)
            self.progress = Progress(**host)
        self.state = self.parallel.replicate(self.state)
        needed = loss_data(config.loss, lambda: self.batches.target.counts(sizes[1]), subwords.pad)
        if needed.prior is not None and is_main():
            save_prior(run_dir, np.asarray(needed.prior))
        if teacher is not None:
            needed = needed._replace(teacher=jax.tree.map(jax.numpy.asarray, teacher.params))
        self.loss_data = self.parallel.replicate(needed)
        self.compilations = CompilationCounter()
        self.signatures: set[tuple[int, ...]] = set()
        self.strength = "label_smoothing" if config.loss.kind == "label_smoothing" else "beta"
        m = config.model
        rates = (m.dropout, m.attention_dropout, m.activation_dropout)
        self.rates = DropoutRates(*(np.float32(r) for r in rates))  # type: ignore[arg-type]
        self.numbers = Hyperparameters.of(config.training)

    def smoothing(self, step: int) -> float:
        """ε of a step, or β where the loss has one."""
        loss = self.config.loss
        if loss.kind != "label_smoothing":
            return loss.beta
        return scheduled_smoothing(
            step,
            self.config.training.max_steps,
            loss.label_smoothing,
            loss.final_label_smoothing,
            loss.schedule,
        )

    def run(self) -> None:
        training = self.config.training
        if self.progress.step >= training.max_steps or self.progress.stopped:
            return
        self.metrics = (
            MetricsLog(
                self.run_dir / "metrics.jsonl", self.progress.step, tensorboard=training.tensorboard
            )
            if is_main()
            else None
        )
        bar = tqdm(
            total=training.max_steps,
            initial=self.progress.step,
            unit="step",
            desc=self.run_dir.name,
            file=sys.stderr,
            disable=not is_main() or None,
            dynamic_ncols=True,
        )
        try:
            with collect_signals() as received, bar:
                self._loop(bar, received)
        except Exception as error:
            # A full disk is a resource too, in the words of the library that writes checkpoints.
            if "RESOURCE_EXHAUSTED" not in str(error) or "No space left" in str(error):
                raise
            raise UserError(
                f"a batch of training.batch_tokens={training.batch_tokens} does not fit in the"
                " device's memory; lower it, or raise training.accumulation"
            ) from error
        finally:
            if self.metrics is not None:
                self.metrics.close()

    def _loop(self, bar: tqdm, received: list[int]) -> None:
        training = self.config.training
        interval = Interval()
        pending = None  # the sums of the step before: read while the next one runs
        batch = self.batches.batch(self.progress.step)
        for step in range(self.progress.step, training.max_steps):
            shape = (*batch.source.shape, batch.target.shape[1])
            self.signatures.add(shape)
            sums = self._dispatch(step, batch)
            interval.see_batch(batch)
            done = step + 1
            last = done == training.max_steps
            if not last:
                batch = self.batches.batch(done)
            if pending is not None:
                self._account(*pending, interval, bar)
            pending = (done, sums)
            logs = done % training.log_every == 0 or last
            validates = self.validate is not None and (done % training.validate_every == 0 or last)
            if not (logs or validates or received or done % training.checkpoint_every == 0):
                continue
            self._account(*pending, interval, bar)
            pending = None
            self.progress.step = done
            record: dict[str, Any] = {"step": done, "epoch": self._epoch(done)}
            if logs:
                record |= interval.record() | self._counters(step)
                interval = Interval()
            improved = False
            if validates:
                paused = time.perf_counter()
                improved = self._validate(done, record)
                interval.started += time.perf_counter() - paused
            if len(record) > 2 and self.metrics is not None:
                self.metrics.write(record)
                if bar.disable and logs:  # no terminal: lines instead of a bar
                    log.info(line_of(record, training.max_steps))
            stop = self._exhausted()
            self.progress.stopped = stop
            if done % training.checkpoint_every == 0 or improved or last or stop or received:
                self._checkpoint(done)
            if received:
                self.checkpoints.wait()
                raise Interrupted(received[0])
            if stop:
                log.warning(
                    "stopped at step %d: no better %s in %d validations",
                    done, training.best_metric, training.patience,
                )  # fmt: skip
                return

    def _dispatch(self, step: int, batch: Batch) -> StepSums:
        split = self.parallel.split_rows(batch, self.config.training.accumulation)
        epsilon = np.float32(self.smoothing(step))
        seed = np.uint32(self.config.seed)
        self.state, sums = self.step(
            self.state, split, seed, epsilon, self.rates, self.loss_data, self.numbers
        )
        return sums

    def _account(self, done: int, sums, interval: Interval, bar: tqdm) -> None:
        """Take a step's sums to the host; waits until that step is done."""
        values = to_host(sums)
        interval.see_sums(values)
        self.progress.tokens += int(values.tokens)
        skipped = int(values.skipped)
        self.progress.skipped += bool(skipped)
        if skipped >= self.config.training.max_skipped:
            began = done - skipped + 1
            raise Diverged(
                f"gradients have not been finite since step {began} ({skipped} steps in a row);"
                " lower training.learning_rate, or set training.clip_norm"
            )
        bar.update(1)
        if done % 10 == 0 or done == self.config.training.max_steps:
            bar.set_postfix(interval.postfix(), refresh=False)

    def _epoch(self, step: int) -> float:
        epoch, position = self.batches.plan.epoch_of(step)
        return round(epoch + position / self.batches.plan.steps_in(epoch), 4)

    def _counters(self, step: int) -> dict[str, Any]:
        return {
            self.strength: self.smoothing(step),
            "target_tokens_total": self.progress.tokens,
            "skipped_total": self.progress.skipped,
            "compilations": len(self.signatures),
            "compilation_cache_misses": self.compilations.misses,
        }

    def _validate(self, step: int, record: dict[str, Any]) -> bool:
        """Add the validation to the record; whether it is the best so far."""
        assert self.validate is not None
        measured = self.validate(to_host(evaluated_params(self.state)), step)
        record |= {f"validation_{name}": value for name, value in measured.items()}
        metric = self.config.training.best_metric
        value = measured[metric]
        improved = self.progress.see_validation(step, value, larger=metric == "bleu")
        text = ", ".join(f"{k} {v:.4g}" for k, v in measured.items() if isinstance(v, float))
        if is_main():
            tqdm.write(f"step {step}: validation {text}{' *' if improved else ''}", file=sys.stderr)
        return improved

    def _exhausted(self) -> bool:
        patience = self.config.training.patience
        return bool(patience) and self.progress.validations_without_best >= patience

    def _checkpoint(self, step: int) -> None:
        if self.metrics is not None:
            self.metrics.sync()
        self.checkpoints.save(step, _as_saved(self.state), self.progress.as_dict())
        self.forget_old()

    def forget_old(self) -> None:
        """Delete checkpoints that are neither among the last nor among the best.

        Goes by those that are whole: until the one being written is, an older one may be needed.
        """
        if not is_main():
            return
        training = self.config.training
        whole = self.checkpoints.steps()
        regular = regular_steps(whole, self.config)[-training.keep_last :]
        larger = training.best_metric == "bleu"
        best = self.progress.best_steps(whole, larger=larger)[: training.keep_best]
        self.checkpoints.keep_only({*regular, *best, *whole[-1:]})


def _as_saved(state: TrainState) -> dict[str, Any]:
    saved = state._asdict()
    if not state.ema:  # orbax has no use for an empty tree
        del saved["ema"]
    return saved


def _from_saved(saved: dict[str, Any], like: TrainState) -> TrainState:
    tree = TrainState(**{"ema": {}, **saved})
    # Left to `replicate` to put on the devices: jnp.array would compile a program for each shape.
    return jax.tree.map(lambda x, y: np.asarray(x, y.dtype), tree, like)
