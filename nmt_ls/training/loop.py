"""The training loop, of one run or of several at the same step: step, log, validate, checkpoint."""

import contextlib
import logging
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np
from tqdm import tqdm

from nmt_ls.data.batches import Batch
from nmt_ls.errors import UserError
from nmt_ls.parallel import is_main, largest_on_hosts
from nmt_ls.training.bookkeeping import Bookkeeping, Diverged
from nmt_ls.training.interruption import Interrupted, collect_signals
from nmt_ls.training.opening import check_attention
from nmt_ls.training.step import StepSums

log = logging.getLogger("nmt_ls")


class Device(Protocol):
    """The devices' side of the runs: their states, and the compiled step."""

    def batches(self, step: int) -> list[Batch]:
        """The batch of each run at a step; runs may share one."""

    def dispatch(self, step: int, batches: list[Batch]) -> StepSums:
        """Begin a step; its sums are not there yet."""

    def sums(self, pending: StepSums) -> list[StepSums]:
        """The sums of each run on the host; waits for the step."""

    def params(self) -> list[dict[str, np.ndarray]]:
        """What is validated of each run, on the host."""

    def saved(self) -> list[dict[str, Any]]:
        """The state of each run as it is written, on the host or replicated."""

    def freeze(self, run: int) -> None:
        """This run goes no further."""


def train(runs: Sequence[Bookkeeping], device: Device, describe: Callable[[], str]) -> None:
    """Train runs that are all at the same step to their end.

    Args:
      runs: with the same `max_steps` and the same intervals of logging, validation, checkpoints.
      device: their states.
      describe: what to do, for the user, when a batch does not fit in memory.

    Raises:
      UserError: the batch does not fit in memory; there is no GPU for `model.attention`.
      Interrupted: after SIGTERM or Ctrl-C.
      Diverged: the one run there is; of several, it is noted in `Bookkeeping.diverged`.
    """
    first = runs[0]
    check_attention(first.config)
    title = first.run_dir.name if len(runs) == 1 else f"{len(runs)} runs"
    bar = tqdm(
        total=first.config.training.max_steps,
        initial=first.progress.step,
        unit="step",
        desc=title,
        file=sys.stderr,
        disable=not is_main() or None,
        dynamic_ncols=True,
    )
    try:
        for run in runs:
            run.open()
        with collect_signals(jax.process_count()) as received, bar:
            _Loop(runs, device, bar, received, describe).go()
    finally:
        for run in runs:
            run.close()


class _Loop:
    def __init__(
        self,
        runs: Sequence[Bookkeeping],
        device: Device,
        bar: tqdm,
        received: list[int],
        describe: Callable[[], str],
    ):
        self.runs, self.device, self.bar, self.received = runs, device, bar, received
        self.describe = describe
        self.training = runs[0].config.training
        self.signatures: set[tuple[int, ...]] = set()

    @property
    def active(self) -> list[int]:
        return [i for i, run in enumerate(self.runs) if run.diverged is None]

    def name(self, run: Bookkeeping) -> str:
        """Begins the lines about a run, where there are several."""
        return f"{run.run_dir.name}: " if len(self.runs) > 1 else ""

    def go(self) -> None:
        """All steps that are left.

        Raises:
          Interrupted: a signal came; everything is saved.
        """
        self._steps()
        # While the last checkpoint was written, say. It is not for whoever comes next.
        self._end_if(self._signalled())

    def _signalled(self) -> int:
        """The signal that a host has got; each must ask at the same point."""
        return largest_on_hosts(self.received[0] if self.received else 0)

    def _end_if(self, signalled: int) -> None:
        if signalled:
            for run in self.runs:
                run.checkpoints.wait()
            raise Interrupted(signalled)

    def _steps(self) -> None:
        training = self.training
        begin = self.runs[0].progress.step
        # Hosts come to know of a signal at different steps, and none may leave the others waiting
        # for its gradients: they look when all of them do, and stop together.
        alone = jax.process_count() == 1
        pending = None  # the sums of the step before: read while the next one runs
        batches = self.device.batches(begin)
        for step in range(begin, training.max_steps):
            self.signatures.add((*batches[0].source.shape, batches[0].target.shape[1]))
            with self._memory_told():
                sums = self.device.dispatch(step, batches)
            for i in self.active:
                self.runs[i].see_batch(batches[i])
            done = step + 1
            last = done == training.max_steps
            if not last:
                batches = self.device.batches(done)
            if pending is not None:
                self._account(*pending)
            pending = (done, sums)
            regular = done % training.checkpoint_every == 0 or last
            logs = done % training.log_every == 0 or last
            validates = training.validate_every and (done % training.validate_every == 0 or last)
            if not (regular or logs or validates or (alone and self.received)):
                continue
            self._account(*pending)
            pending = None
            improved = self._record(done, logs, bool(validates))
            stop = self._stopped()
            # Looked at once: a signal after this ends the next step.
            signalled = self._signalled()
            self._checkpoint(done, self.active if regular or stop or signalled else improved)
            self._end_if(signalled)
            if stop:
                return

    @contextlib.contextmanager
    def _memory_told(self) -> Iterator[None]:
        """Around a step and nothing else: a full disk and too many open files are exhausted
        resources too, in the words of the library that writes checkpoints, and a validation has
        batches of its own."""
        try:
            yield
        except Exception as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError(
                f"a batch of training.batch_tokens={self.training.batch_tokens} does not fit in the"
                f" device's memory; {self.describe()}"
            ) from error

    def _account(self, done: int, pending: StepSums) -> None:
        """Take a step's sums to the host; waits until that step is done."""
        with self._memory_told():
            values = self.device.sums(pending)
        for i in self.active:
            try:
                self.runs[i].see_sums(done, values[i])
            except Diverged as error:
                if len(self.runs) == 1:
                    raise
                self.runs[i].give_up(done, error)
                self.device.freeze(i)
                log.warning("%sgoes no further: %s", self.name(self.runs[i]), error)
        self.bar.update(1)
        if self.active and (done % 10 == 0 or done == self.training.max_steps):
            interval = self.runs[self.active[0]].interval
            self.bar.set_postfix(interval.postfix(), refresh=False)

    def _record(self, done: int, logs: bool, validates: bool) -> list[int]:
        """Log and validate; which runs are better than ever."""
        records = {}
        for i in self.active:
            run = self.runs[i]
            run.progress.step = done
            records[i] = run.begin_record(done)
            if logs:
                records[i] |= run.measured(done, len(self.signatures))
        improved = []
        if validates and any(self.runs[i].validate is not None for i in self.active):
            paused = time.perf_counter()
            params = self.device.params()
            for i in self.active:
                run = self.runs[i]
                if run.validate is not None and run.validated(
                    done, params[i], records[i], self.name(run)
                ):
                    improved.append(i)
            for i in self.active:
                self.runs[i].interval.started += time.perf_counter() - paused
        for i, record in records.items():
            if len(record) > 2:
                # No terminal: lines instead of a bar.
                to_log = bool(self.bar.disable) and logs
                self.runs[i].write(record, to_log=to_log, name=self.name(self.runs[i]))
        return improved

    def _stopped(self) -> bool:
        """Whether no run goes on, for want of patience or because all have diverged."""
        for i in self.active:
            run = self.runs[i]
            run.progress.stopped = run.exhausted
            if run.exhausted:
                log.warning(
                    "%sstopped at step %d: no better %s in %d validations",
                    self.name(run), run.progress.step, self.training.best_metric,
                    run.config.training.patience,
                )  # fmt: skip
        return all(self.runs[i].progress.stopped for i in self.active)

    def _checkpoint(self, done: int, which: Sequence[int]) -> None:
        if not which:
            return
        states = self.device.saved()
        for i in which:
            self.runs[i].checkpoint(done, states[i])
        del states
        # Only what all have may be relied on: a group goes on from there.
        steps = [set(self.runs[i].checkpoints.steps()) for i in self.active]
        whole = sorted(set.intersection(*steps))
        for i in self.active:
            self.runs[i].forget_old(whole)
