"""One update of many runs as one program: the step of `step.py` over a leading axis of members."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float, Int, UInt

from nmt_ls.data.batches import Batch
from nmt_ls.model import DropoutRates, Params
from nmt_ls.training.objective import LossData
from nmt_ls.training.optimizer import Hyperparameters
from nmt_ls.training.step import StepSums, TrainState

Way = Literal["map", "vmap"]
"""map: members in turn, for CPUs; vmap: members side by side, for accelerators."""


class MemberNumbers(NamedTuple):
    """What members differ in: arrays with a leading axis of members, data of the step."""

    seed: UInt[np.ndarray, "M"]
    epsilon: Float[np.ndarray, "M"]
    """ε, or β of the losses that have one, at this step."""
    rates: DropoutRates
    hyperparameters: Hyperparameters
    batch: Int[np.ndarray, "M"]
    """Which of the batches a member trains on: members of one seed share theirs."""
    loss_data: Int[np.ndarray, "M"]
    """Which of the loss data."""


class Shared(NamedTuple):
    """All of a step that is neither state nor batch, on every device."""

    numbers: MemberNumbers
    order: Int[np.ndarray, "M"]
    """Members that take the step, then those that do not."""
    active: Int[np.ndarray | np.int32, ""]
    """How many take it."""
    loss_data: LossData
    """Those that differ, stacked; `teacher` is empty."""
    teacher: Params | None = None
    """Parameters of the run whose confidences graduate ε, for all members."""


def stacked(trees: Sequence[Any]) -> Any:
    """Trees of numpy arrays of one shape as one tree with a leading axis; the first's structure.

    Empty nodes (of an optax chain, say) may differ between the trees.
    """
    leaves = zip(*(jax.tree.leaves(tree) for tree in trees), strict=True)
    structure = jax.tree.structure(trees[0])
    return jax.tree.unflatten(structure, [np.stack(group) for group in leaves])


def default_way() -> Way:
    """What is faster on these devices (`nmt-ls bench population`)."""
    return "map" if jax.default_backend() == "cpu" else "vmap"


def make_population_step(step: Callable, way: Way) -> Callable:
    """`fn(states, batches, shared) → (states, sums)`, leading axis M of states and sums: members.

    Each member's numbers are those it would have alone, up to rounding: the same keys make the
    same random bits, and its gradients are summed over devices outside of what is differentiated.

    Args:
      step: from `make_step`.
      way: how members run. `map` holds the activations of one member at a time, takes the sum of
        their times, and leaves out those that do not take the step. Under `vmap` small products
        become one larger product, a branch costs both its sides, and all members take the step.
    """

    def one(state: TrainState, numbers: MemberNumbers, batches: Batch, shared: Shared):
        data = _chosen(shared.loss_data, numbers.loss_data)
        return step(
            state,
            _chosen(batches, numbers.batch),
            numbers.seed,
            numbers.epsilon,
            numbers.rates,
            data._replace(teacher=shared.teacher),
            numbers.hyperparameters,
        )

    def side_by_side(states: TrainState, batches: Batch, shared: Shared):
        along_members = jax.vmap(one, in_axes=(0, 0, None, None))
        return along_members(states, shared.numbers, batches, shared)

    def in_turn(states: TrainState, batches: Batch, shared: Shared):
        zeros = jnp.zeros(shared.order.shape)
        sums = StepSums(zeros, zeros, zeros, zeros, zeros, skipped=zeros.astype(jnp.int32))

        # The states are carried, not mapped over, so that they are updated where they lie.
        def body(i, carried: tuple[TrainState, StepSums]):
            member = shared.order[i]
            new = one(_at(carried[0], member), _at(shared.numbers, member), batches, shared)
            return jax.tree.map(
                lambda x, y: jax.lax.dynamic_update_index_in_dim(x, y, member, 0), carried, new
            )

        return jax.lax.fori_loop(0, shared.active, body, (states, sums))

    return side_by_side if way == "vmap" else in_turn


def _chosen(table: Any, index: ArrayLike) -> Any:
    """One entry of a tree whose arrays have a leading axis; where there is one only, that."""

    return jax.tree.map(lambda x: x[0] if x.shape[0] == 1 else _at(x, index), table)


def _at(tree: Any, index: ArrayLike) -> Any:
    return jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, index, keepdims=False), tree)
