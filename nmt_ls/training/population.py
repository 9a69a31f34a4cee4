"""Many runs trained together: one compiled step, and run directories as of runs trained alone."""

import contextlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nmt_ls.data.batches import Batch
from nmt_ls.model import DropoutRates
from nmt_ls.parallel import barrier, is_main, to_host
from nmt_ls.training.bookkeeping import DIVERGED, Bookkeeping, Diverged, as_saved, strength_of
from nmt_ls.training.checkpoints import Checkpoints
from nmt_ls.training.groups import Member, check_together
from nmt_ls.training.lock import alone_in
from nmt_ls.training.loop import train
from nmt_ls.training.objective import LossData, loss_data
from nmt_ls.training.opening import check_run, open_run
from nmt_ls.training.optimizer import Hyperparameters
from nmt_ls.training.population_step import MemberNumbers, Shared, Way, default_way, stacked
from nmt_ls.training.programs import compiled_population_step, decisive_of_all
from nmt_ls.training.progress import Progress
from nmt_ls.training.resuming import (
    furthest_together,
    place_of,
    progress_of,
    resume,
    shapes_of,
)
from nmt_ls.training.runs import save_prior
from nmt_ls.training.step import StepSums, TrainState, evaluated_params
from nmt_ls.training.trainer import batches_of, finish, fit, rates_of

log = logging.getLogger("nmt_ls")

__all__ = ["Member", "SomeDiverged", "fit_population"]


class SomeDiverged(Diverged):
    """Members of a population have diverged; the others are trained to their end."""

    def __init__(self, steps: list[int], reasons: dict[Path, str]):
        told = "; ".join(f"{run_dir.name}: {reason}" for run_dir, reason in reasons.items())
        super().__init__(f"{len(reasons)} of {len(steps)} runs diverged: {told}")
        self.steps = steps
        """The last step of each member."""
        self.reasons = reasons


def fit_population(members: Sequence[Member], *, way: Way | None = None) -> list[int]:
    """Train runs together, to their end or from wherever they were; returns their last steps.

    Afterwards each is a run directory as `fit` makes it, which `fit` alone could continue. Members
    of one seed share initial parameters, batches and dropout keys. All are at the same step: after
    a kill they go on from the newest step of which every member has a checkpoint, and members that
    were further do again what came after it. Members that have finished before are left alone.
    Members that were trained apart, and would lose that by going back, are not taken back: those at
    the same place go on together, the furthest first, and the others after them.

    Args:
      members: as `groups_of` puts them together; one alone is trained by `fit`.
      way: how members run in a step; None: what suits the devices.

    Raises:
      UserError: members that cannot train together; a run directory belongs to another
        configuration; another process trains in one; the batches do not fit in memory.
      Interrupted: after SIGTERM or Ctrl-C.
      SomeDiverged: when all else is done, if members had no finite gradient for
        `training.max_skipped` steps in a row.
    """
    if len(members) == 1:
        m = members[0]
        alone = {"initial_params": m.initial_params, "teacher": m.teacher}
        return [fit(m.config, m.data, m.run_dir, m.validate, **alone)]  # type: ignore[arg-type]
    check_together(members)
    if is_main():
        for m in members:  # all, before anything is written
            check_run(m.run_dir, m.config, m.data, m.teacher)
    with alone_in([m.run_dir for m in members]):
        return _fit_together(members, way or default_way())


def _fit_together(members: Sequence[Member], way: Way) -> list[int]:
    if is_main():
        for m in members:
            open_run(m.run_dir, m.config, m.data, m.teacher)
    barrier("run directories")
    steps = [0] * len(members)
    reasons = {m.run_dir: reason for m in members if (reason := _diverged_before(m.run_dir))}
    with contextlib.ExitStack() as stack:
        checkpoints = [Checkpoints(m.run_dir / "checkpoints") for m in members]
        for one in checkpoints:
            stack.callback(one.close)
            one.clear_unfinished()
        waiting = []
        for i, m in enumerate(members):
            progress = progress_of(m, checkpoints[i])
            steps[i] = progress.step
            if not progress.over(m.config.training) and m.run_dir not in reasons:
                waiting.append(i)
        trained = set(waiting)
        while waiting:
            for i, run in _train_furthest(members, waiting, checkpoints, way):
                waiting.remove(i)
                steps[i] = run.progress.step
                if run.diverged is None:
                    run.forget_old()
                else:
                    reasons[run.run_dir] = str(run.diverged)
    for i, m in enumerate(members):
        if m.run_dir not in reasons:
            finish(m.config, m.run_dir, moved=i in trained)
    barrier("averages")
    if reasons:
        raise SomeDiverged(steps, reasons)
    return steps


def _diverged_before(run_dir: Path) -> str:
    """Why a member went no further in an earlier call; the same steps would end the same."""
    path = run_dir / DIVERGED
    return json.loads(path.read_text())["message"] if path.exists() else ""


def _train_furthest(
    members: Sequence[Member],
    waiting: Sequence[int],
    checkpoints: Sequence[Checkpoints],
    way: Way,
) -> list[tuple[int, Bookkeeping]]:
    """Train those members that are furthest to their end; returns them with their numbers.

    None of them, if it turned out that a checkpoint is damaged.
    """
    barrier("places")
    places = {i: place_of(members[i].run_dir, checkpoints[i]) for i in waiting}
    training = members[0].config.training
    part, step = furthest_together(
        places, checkpoint_every=training.checkpoint_every, log_every=training.log_every
    )
    found = resume([members[i] for i in part], [checkpoints[i] for i in part], step)
    if found is None:
        return []
    if len(part) < len(waiting):
        names = ", ".join(members[i].run_dir.name for i in part)
        log.info("from step %d, apart from runs that are not so far: %s", step, names)
    group = _Group(members, part, checkpoints, way, *found)
    try:
        train(group.runs, group, lambda: "lower it, or train fewer runs together")
    except Diverged as error:  # of one alone; others may have to be trained yet
        group.runs[0].give_up(group.runs[0].progress.step, error)
    for i in part:
        checkpoints[i].wait()
    return list(zip(part, group.runs, strict=True))


class _Group:
    """The devices' side of the members that are trained; a `Device` of the loop.

    Args:
      members: all of them. Where members run in turn, those that are not trained keep a place in
        the arrays: the program stays the same to the bit, and they cost no time.
      trained: which of them are; the loop's runs, in this order.
      checkpoints: of each member.
      way: how members run.
      states, progress: of each that is trained, from `resume`.
    """

    def __init__(
        self,
        members: Sequence[Member],
        trained: Sequence[int],
        checkpoints: Sequence[Checkpoints],
        way: Way,
        states: Sequence[TrainState],
        progress: Sequence[Progress],
    ):
        if way == "vmap":
            members = [members[i] for i in trained]
            checkpoints = [checkpoints[i] for i in trained]
            trained = range(len(members))
        self.trained = list(trained)
        self.configs = configs = [m.config for m in members]
        first = members[0]
        subwords = first.data.subwords
        self.parallel, self.step = compiled_population_step(
            *decisive_of_all(configs), first.sizes, subwords.bos, subwords.pad,
            first.teacher.config.model if first.teacher is not None else None, way,
        )  # fmt: skip
        seeds = list(dict.fromkeys(config.seed for config in configs))
        self.batch_index = [seeds.index(config.seed) for config in configs]
        self.streams = {
            seeds.index(configs[i].seed): batches_of(configs[i], first.data, self.parallel.count)
            for i in self.trained
        }
        # An empty node of the optimizer's state may differ between members, leaves do not.
        self.structures = [jax.tree.structure(shapes_of(m)) for m in members]
        self.runs = [
            Bookkeeping(
                configs[i], members[i].run_dir, members[i].validate, checkpoints[i], one,
                self.streams[self.batch_index[i]].plan, members[i].data.validation,
            )
            for i, one in zip(self.trained, progress, strict=True)
        ]  # fmt: skip
        all_states = [states[0]] * len(members)  # those that are not trained may have any
        for i, state in zip(self.trained, states, strict=True):
            all_states[i] = state
        widest = max(range(len(members)), key=lambda i: configs[i].training.weight_decay)
        together = jax.tree.unflatten(self.structures[widest], jax.tree.leaves(stacked(all_states)))
        self.states = self.parallel.replicate(together)
        self.loss_data, loss_index = self._loss_data(members)
        teacher = first.teacher.params if first.teacher is not None else None
        self.teacher = self.parallel.replicate(teacher)
        self.numbers = MemberNumbers(
            seed=np.array([config.seed for config in configs], np.uint32),
            epsilon=np.zeros(len(configs), np.float32),
            rates=DropoutRates(*np.array([rates_of(config) for config in configs]).T.copy()),
            hyperparameters=Hyperparameters(
                *np.array([Hyperparameters.of(c.training) for c in configs]).T.copy()
            ),
            batch=np.array(self.batch_index, np.int32),
            loss_data=np.array(loss_index, np.int32),
        )
        self.frozen: set[int] = set()

    def _loss_data(self, members: Sequence[Member]) -> tuple[LossData, list[int]]:
        """(the members' different loss data on the devices, which of them is whose)."""
        column, size = next(iter(self.streams.values())).target, members[0].sizes[1]

        def count() -> np.ndarray:
            return column.counts(size)

        different: dict[Any, LossData] = {}
        kinds = []
        for i, m in enumerate(members):
            loss = m.config.loss
            kind = (loss.prior, loss.prior_temperature, loss.class_weight_power)
            if kind not in different:
                different[kind] = loss_data(loss, count, m.data.subwords.pad)
            kinds.append(list(different).index(kind))
            prior = different[kind].prior
            if prior is not None and i in self.trained and is_main():
                save_prior(m.run_dir, np.asarray(prior))
        return self.parallel.replicate(stacked(list(different.values()))), kinds

    def smoothing(self, run: int, step: int) -> float:
        """ε of a run at a step, or β where the loss has one."""
        return strength_of(self.runs[run].config, step)

    def batches(self, step: int) -> list[Batch]:
        different = {k: stream.batch(step) for k, stream in self.streams.items()}
        return [different[self.batch_index[i]] for i in self.trained]

    def dispatch(self, step: int, batches: list[Batch]) -> StepSums:
        accumulation = self.configs[0].training.accumulation
        owners = {self.batch_index[i]: batches[run] for run, i in enumerate(self.trained)}
        split = {k: self.parallel.split_rows(batch, accumulation) for k, batch in owners.items()}
        filler = next(iter(split.values()))  # for seeds of which no member is trained
        by_seed = [split.get(k, filler) for k in range(max(self.batch_index) + 1)]
        epsilon = np.zeros(len(self.configs), np.float32)
        for run, i in enumerate(self.trained):
            epsilon[i] = self.smoothing(run, step)
        active = [i for i in self.trained if i not in self.frozen]
        order = [*active, *(i for i in range(len(self.configs)) if i not in active)]
        shared = Shared(
            self.numbers._replace(epsilon=epsilon),
            np.array(order, np.int32),
            np.int32(len(active)),
            self.loss_data,
            self.teacher,
        )
        # [devices, seeds, parts, rows, …]
        batch = Batch(*(np.stack(arrays, axis=1) for arrays in zip(*by_seed, strict=True)))
        self.states, sums = self.step(self.states, batch, shared)
        return sums

    def sums(self, pending: StepSums) -> list[StepSums]:
        values = to_host(pending)
        return [StepSums(*(x[i] for x in values)) for i in self.trained]

    def params(self) -> list[dict[str, np.ndarray]]:
        params = to_host(evaluated_params(self.states))
        return [{name: x[i] for name, x in params.items()} for i in self.trained]

    def saved(self) -> list[dict[str, Any]]:
        leaves = jax.tree.leaves(to_host(self.states))
        return [
            as_saved(jax.tree.unflatten(self.structures[i], [x[i] for x in leaves]))
            for i in self.trained
        ]

    def freeze(self, run: int) -> None:
        self.frozen.add(self.trained[run])
