"""One run: resume, train, average."""

import dataclasses
import logging
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nmt_ls.config import Config
from nmt_ls.data.batches import Batch, Batches
from nmt_ls.data.prepare import PreparedData
from nmt_ls.data.resampling import resampler
from nmt_ls.errors import UserError
from nmt_ls.model import DropoutRates
from nmt_ls.parallel import barrier, equal_on_hosts, is_main, to_host
from nmt_ls.training.bookkeeping import (
    DIVERGED,
    Bookkeeping,
    Diverged,
    Validate,
    as_saved,
    strength_of,
)
from nmt_ls.training.checkpoints import (
    Checkpoints,
    average_steps,
    checksum,
    set_average_aside,
    steps_in,
)
from nmt_ls.training.interruption import Interrupted
from nmt_ls.training.lock import alone_in
from nmt_ls.training.loop import train
from nmt_ls.training.objective import loss_data
from nmt_ls.training.opening import check_run, open_run
from nmt_ls.training.optimizer import Hyperparameters
from nmt_ls.training.programs import compiled_step, decisive
from nmt_ls.training.progress import Progress
from nmt_ls.training.runs import LoadedRun, average_run, regular_steps, save_prior
from nmt_ls.training.step import (
    StepSums,
    TrainState,
    evaluated_params,
    initial_state,
    state_from,
)

log = logging.getLogger("nmt_ls")

__all__ = ["Diverged", "Interrupted", "Validate", "fit"]


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
      UserError: the directory belongs to another configuration; another process trains in it; the
        batch does not fit in memory.
      Interrupted: after SIGTERM or Ctrl-C.
      Diverged: after `training.max_skipped` steps in a row without a finite gradient.
    """
    if is_main():
        check_run(run_dir, config, data, teacher)  # before anything is written
    with alone_in([run_dir]):
        return _fit(config, data, run_dir, validate, initial_params, teacher)


def _fit(
    config: Config,
    data: PreparedData,
    run_dir: Path,
    validate: Validate | None,
    initial_params: dict[str, np.ndarray] | None,
    teacher: LoadedRun | None,
) -> int:
    if is_main():
        open_run(run_dir, config, data, teacher)
        (run_dir / DIVERGED).unlink(missing_ok=True)  # it is tried once more
    barrier("run directory")
    checkpoints = Checkpoints(run_dir / "checkpoints")
    checkpoints.clear_unfinished()
    try:
        trainer = _Trainer(config, data, run_dir, initial_params, teacher, checkpoints)
        progress, plan = trainer.progress, trainer.stream.plan
        run = Bookkeeping(config, run_dir, validate, checkpoints, progress, plan, data.validation)
        before = progress.step
        if not run.finished:
            train([run], trainer, lambda: "lower it, or raise training.accumulation")
        checkpoints.wait()
        run.forget_old()
    finally:
        checkpoints.close()
    finish(config, run_dir, moved=progress.step > before)
    barrier("average")
    return progress.step


def finish(config: Config, run_dir: Path, *, moved: bool) -> None:
    """What comes after the last step: the average, unless a current one is there.

    An average of older checkpoints is renewed, whether this call has trained or an earlier one
    that was killed before it averaged. Where `training.average_last` is 0 there is nothing to
    renew it with: it is set aside, since an average is what is evaluated by default.

    Args:
      config: of the run, whose config.yaml says the same.
      run_dir: has checkpoints.
      moved: this call has trained; an average of any number of last checkpoints is then made anew.
    """
    if not is_main():
        return
    last, directory = config.training.average_last, run_dir / "checkpoints"
    if last and (moved or lacks_average(config, run_dir)):
        average_run(run_dir, last)
    elif not last and lacks_average(config, run_dir):
        aside = set_average_aside(directory)
        log.info("%s: the average is of older checkpoints; set aside as %s", run_dir, aside.name)


def lacks_average(config: Config, run_dir: Path) -> bool:
    """Whether a run has no average although it should, or one of older checkpoints.

    One that ends with the last regular checkpoint (see `average_run`) is up to date, wherever early
    stopping has ended the run. Of how many checkpoints it is does not count: `nmt-ls average` may
    have chosen another number.
    """
    directory = run_dir / "checkpoints"
    if not (directory / "average").is_dir():
        return config.training.average_last > 0
    return average_steps(directory)[-1:] != regular_steps(steps_in(directory), config)[-1:]


def _check_hosts(
    config: Config,
    data: PreparedData,
    run_dir: Path,
    step: int,
    initial_params: dict[str, np.ndarray] | None,
    teacher: LoadedRun | None,
) -> None:
    """Check that all hosts are about to do the same: each sees its own files and options.

    Raises:
      UserError: they are not; said on all of them.
    """
    if jax.process_count() == 1:
        return
    # What other runs are called may differ from host to host.
    loss = dataclasses.replace(config.loss, graduated_run="", teacher_run="")
    training = dataclasses.replace(config.training, init_from="")
    # Not the digest of the text: `datasets` puts into it when a host has fetched it.
    drawn = [config.subwords.sampling_candidates, config.subwords.sampling_alpha]
    text = [len(data.train), data.report["tokens"], data.subwords.fingerprint, *drawn]
    text += [data.validation is not None]
    params = [checksum(p) for p in (initial_params, teacher.params if teacher else None)]
    same = [config.model, loss, training, config.seed, *text, *params]
    if not equal_on_hosts(zlib.crc32(repr(same).encode()) >> 1):
        raise UserError(
            "the hosts were given different settings, text or runs to begin with; start all of"
            " them with the same configuration and the same files"
        )
    if not equal_on_hosts(step):
        raise UserError(
            f"the hosts would not go on from the same step; this one finds step {step} in {run_dir}"
            "\ntrain in a --run-dir on a file system that all of them share"
        )


class _Trainer:
    """The devices' side of a run; a `Device` of the loop."""

    def __init__(
        self,
        config: Config,
        data: PreparedData,
        run_dir: Path,
        initial_params: dict[str, np.ndarray] | None,
        teacher: LoadedRun | None,
        checkpoints: Checkpoints,
    ):
        self.config = config
        subwords = data.subwords
        sizes = (subwords.source_size, subwords.target_size)
        self.parallel, self.step = compiled_step(
            *decisive(config), sizes, subwords.bos, subwords.pad,
            teacher.config.model if teacher is not None else None,
        )  # fmt: skip
        self.stream = batches_of(config, data, self.parallel.count)
        self.progress = Progress()
        self.state = state = first_state(config, sizes, initial_params)
        found = checkpoints.restore(as_saved(state))
        if found is not None:
            _, saved, host = found
            self.state = from_saved(saved, state)
            self.progress = Progress(**host)
        _check_hosts(config, data, run_dir, self.progress.step, initial_params, teacher)
        self.state = self.parallel.replicate(self.state)
        needed = loss_data(config.loss, lambda: self.stream.target.counts(sizes[1]), subwords.pad)
        if needed.prior is not None and is_main():
            save_prior(run_dir, np.asarray(needed.prior))
        if teacher is not None:
            needed = needed._replace(teacher=jax.tree.map(jax.numpy.asarray, teacher.params))
        self.loss_data = self.parallel.replicate(needed)
        self.rates = rates_of(config)
        self.numbers = Hyperparameters.of(config.training)

    def smoothing(self, step: int) -> float:
        """ε of a step, or β where the loss has one."""
        return strength_of(self.config, step)

    def batches(self, step: int) -> list[Batch]:
        return [self.stream.batch(step)]

    def dispatch(self, step: int, batches: list[Batch]) -> StepSums:
        split = self.parallel.split_rows(batches[0], self.config.training.accumulation)
        epsilon = np.float32(self.smoothing(step))
        seed = np.uint32(self.config.seed)
        self.state, sums = self.step(
            self.state, split, seed, epsilon, self.rates, self.loss_data, self.numbers
        )
        return sums

    def sums(self, pending: StepSums) -> list[StepSums]:
        return [to_host(pending)]

    def params(self) -> list[dict[str, np.ndarray]]:
        return [to_host(evaluated_params(self.state))]

    def saved(self) -> list[dict[str, Any]]:
        return [as_saved(self.state)]

    def freeze(self, run: int) -> None:
        raise NotImplementedError("a run that is alone ends")


def batches_of(config: Config, data: PreparedData, devices: int) -> Batches:
    """The batches of a run on so many devices."""
    return Batches(
        data.train,
        batch_tokens=config.training.batch_tokens,
        shapes=config.training.shapes,
        seed=config.seed,
        pad=data.subwords.pad,
        row_multiple=devices * config.training.accumulation,
        resample=resampler(data) if config.subwords.sampling_candidates > 1 else None,
    )


def first_state(
    config: Config, sizes: tuple[int, int], initial_params: dict[str, np.ndarray] | None = None
) -> TrainState:
    """The state before the first step, drawn or from given parameters."""
    if initial_params is None:
        return initial_state(config.model, config.training, sizes, config.seed)
    return state_from(jax.tree.map(jax.numpy.asarray, initial_params), config.training)


def rates_of(config: Config) -> DropoutRates:
    """The dropout rates of a configuration, as data of the step."""
    m = config.model
    rates = (m.dropout, m.attention_dropout, m.activation_dropout)
    return DropoutRates(*(np.float32(r) for r in rates))  # type: ignore[arg-type]


def from_saved(saved: dict[str, Any], like: TrainState) -> TrainState:
    """A state as it was before `as_saved`, on the host."""
    tree = TrainState(**{"ema": {}, **saved})
    # Left to `replicate` to put on the devices: jnp.array would compile a program for each shape.
    return jax.tree.map(lambda x, y: np.asarray(x, y.dtype), tree, like)
