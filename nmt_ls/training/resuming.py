"""Where runs that train together go on from: which of them still share a place, and their states.

A kill leaves the members of a population at neighbouring checkpoints, and they go on from the
newest that all have. Runs that have been trained apart share no such place: those that are further
must not lose what they have because others have less, and go on from where they are.
"""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from nmt_ls.parallel import barrier, is_main
from nmt_ls.training.bookkeeping import as_saved
from nmt_ls.training.checkpoints import Checkpoints
from nmt_ls.training.groups import Member
from nmt_ls.training.metrics import read_metrics
from nmt_ls.training.progress import Progress
from nmt_ls.training.step import TrainState
from nmt_ls.training.trainer import first_state, from_saved

log = logging.getLogger("nmt_ls")


class Place(NamedTuple):
    """How far a run has come."""

    steps: Sequence[int]
    """Those that have a checkpoint, ascending."""
    logged: int | None
    """The last one in metrics.jsonl; None: there is no such file, no step was ever begun."""

    @property
    def newest(self) -> int:
        """Where the run alone would go on from."""
        return max(self.steps, default=0)


def place_of(run_dir: Path, checkpoints: Checkpoints) -> Place:
    """How far a run has come by what is on disk."""
    path = run_dir / "metrics.jsonl"
    records = read_metrics(path) if path.exists() else None
    logged = None if records is None else max((r["step"] for r in records), default=0)
    return Place(checkpoints.steps(), logged)


def furthest_together(
    places: Mapping[int, Place], *, checkpoint_every: int, log_every: int
) -> tuple[list[int], int]:
    """(the run that is furthest and those that go on with it, the step they go on from).

    Args:
      places: by the runs' numbers; at least one.
      checkpoint_every, log_every: of all of them.
    """
    order = sorted(places, key=lambda i: -places[i].newest)
    part, step = order[:1], places[order[0]].newest
    for i in order[1:]:
        together = [places[j] for j in (*part, i)]
        common = _common_step(together, checkpoint_every, log_every)
        if common is not None:
            part, step = [*part, i], common
    return sorted(part), step


def _common_step(places: Sequence[Place], checkpoint_every: int, log_every: int) -> int | None:
    """The step from which runs go on together; None if one would lose what it was trained alone."""
    newest = {place.newest for place in places}
    if len(newest) == 1:
        return newest.pop()
    # Killed together: at the same step, give or take the record that was being written.
    logged = [place.logged for place in places if place.logged is not None]
    if len(logged) < len(places) or max(logged) - min(logged) > log_every:
        return None
    if all(place.steps for place in places):
        shared = set.intersection(*(set(place.steps) for place in places))
    else:  # as the first checkpoints were written
        shared = {0}
    # One is complete while the next is written, and a slow disk may be one behind. What is further
    # back was lost in another way, which is no reason for all to go there.
    near = [step for step in shared if max(newest) - step <= 2 * checkpoint_every]
    return max(near, default=None)


def progress_of(member: Member, checkpoints: Checkpoints) -> Progress:
    """How far a member is by its newest whole checkpoint."""
    if not checkpoints.steps():
        return Progress()
    found = checkpoints.restore(as_saved(shapes_of(member)))
    return Progress(**found[2]) if found is not None else Progress()


def shapes_of(member: Member) -> TrainState:
    """The shapes and dtypes of a member's state."""
    return jax.eval_shape(lambda: first_state(member.config, member.sizes, member.initial_params))


def resume(
    members: Sequence[Member], checkpoints: Sequence[Checkpoints], step: int
) -> tuple[list[TrainState], list[Progress]] | None:
    """States and progress at a step that all members have; what is newer is deleted.

    Returns:
      None if a checkpoint was damaged: it is set aside, nothing is deleted.
    """
    if step:
        shapes = [shapes_of(m) for m in members]
        likes = [as_saved(shape) for shape in shapes]
        found = [one.restore_step(step, like) for one, like in zip(checkpoints, likes, strict=True)]
        whole = [f for f in found if f is not None]
        if len(whole) < len(found):
            return None
        states = [from_saved(f[0], like) for f, like in zip(whole, shapes, strict=True)]
        progress = [Progress(**f[1]) for f in whole]
    else:
        states, progress = _first_states(members), [Progress() for _ in members]
    barrier("common step")
    for m, one in zip(members, checkpoints, strict=True):
        newer = {s for s in one.steps() if s > step}
        if newer and is_main():
            log.info("%s goes back to step %d, which all have", m.run_dir.name, step)
            one.delete(newer)
    return states, progress


def _first_states(members: Sequence[Member]) -> list[TrainState]:
    drawn: dict[int, TrainState] = {}
    states = []
    for m in members:
        if m.initial_params is not None:
            state = first_state(m.config, m.sizes, m.initial_params)
            states.append(jax.tree.map(np.asarray, state))
            continue
        if m.config.seed not in drawn:
            state = first_state(m.config, m.sizes)
            drawn[m.config.seed] = jax.tree.map(np.asarray, state)
        states.append(drawn[m.config.seed])
    return states
