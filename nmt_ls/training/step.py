"""One update as a pure function: (state, batch, seed, ε, dropout rates, …) → (state, sums)."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from nmt_ls.config import LossConfig, ModelConfig, TrainingConfig
from nmt_ls.data.batches import Batch
from nmt_ls.model import Dropout, DropoutRates, Params, graph_of, initial_params, model_of
from nmt_ls.parallel import AXIS
from nmt_ls.training.objective import LossData, make_objective, real_tokens, shift_right
from nmt_ls.training.optimizer import Hyperparameters, learning_rate, make_optimizer

# Purposes keep the random streams of one seed apart.
_INITIALISATION, _DROPOUT = 0, 1


class TrainState(NamedTuple):
    """Everything on the devices that decides the future of a run."""

    params: Params
    optimizer: optax.OptState
    ema: Params
    """Moving average of the parameters; empty where none is kept."""
    step: Int[Array, ""]
    """Steps done, skipped ones included."""
    updates: Int[Array, ""]
    """Updates applied."""
    skipped: Int[Array, ""]
    """Steps in a row, up to this one, whose gradients were not finite."""
    skipped_total: Int[Array, ""]


class StepSums(NamedTuple):
    """What a step measured, summed over all devices."""

    loss: Float[Array, ""]
    """Σ smoothed loss, nats."""
    nll: Float[Array, ""]
    """Σ hard-label negative log-likelihood (with dropout), nats."""
    tokens: Float[Array, ""]
    """Real target tokens."""
    gradient_norm: Float[Array, ""]
    """Global norm of the per-token mean gradient, before clipping."""
    learning_rate: Float[Array, ""]
    skipped: Int[Array, ""]
    """As in TrainState."""


def purpose_key(seed: ArrayLike, purpose: int) -> Array:
    """The root of one purpose's random stream."""
    return jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), purpose)


def initial_state(
    model: ModelConfig, training: TrainingConfig, sizes: tuple[int, int], seed: int
) -> TrainState:
    """State before the first step; a pure function of its arguments."""
    params = initial_params(model, *sizes, purpose_key(seed, _INITIALISATION))
    return state_from(params, training)


def state_from(params: Params, training: TrainingConfig) -> TrainState:
    """State before the first step, starting from these parameters."""
    # Four arrays, not one four times: a donated buffer may appear only once.
    counters = (jnp.zeros((), jnp.int32) for _ in range(4))
    ema = jax.tree.map(jnp.copy, params) if training.ema_decay else {}
    optimizer = make_optimizer(training).init(params)
    return TrainState(params, optimizer, ema, *counters)


def evaluated_params(state: TrainState) -> Params:
    """What is validated, evaluated and averaged: the moving average where one is kept."""
    return state.ema or state.params


def make_local_loss(
    model: ModelConfig,
    loss: LossConfig,
    sizes: tuple[int, int],
    bos: int,
    pad: int,
    teacher: ModelConfig | None = None,
):
    """What is differentiated: `fn(params, part, key, ε, rates, data) → (Σ loss, (tokens, Σ nll))`.

    Arguments as of `make_step`; the part's arrays are `[rows, …]`, and a last argument, `number`,
    says which of the batch's parts it is: of dropout each row has its own bits, wherever it is.
    """
    graph = graph_of(model, *sizes)
    objective = make_objective(loss, sizes, bos, pad, teacher)
    enabled = (model.dropout > 0, model.attention_dropout > 0, model.activation_dropout > 0)

    def local_loss(
        params, part: Any, key, epsilon, rates: DropoutRates, data: LossData, number: ArrayLike = 0
    ):
        transformer = model_of(graph, params)
        dropout = Dropout(key if any(enabled) else None, rates, enabled, number)
        memory = transformer.encode(part.source, part.source_lengths, dropout)
        hidden = transformer.decode(memory, shift_right(part.target, bos), dropout)
        total, nll = objective(transformer, hidden, part, epsilon, data)
        tokens = jnp.sum(real_tokens(part.target, part.target_lengths).astype(jnp.float32))
        return total, (tokens, nll)

    return local_loss


def make_step(
    model: ModelConfig,
    loss: LossConfig,
    training: TrainingConfig,
    sizes: tuple[int, int],
    bos: int,
    pad: int,
    teacher: ModelConfig | None = None,
):
    """`fn(state, batch, seed, ε, rates, data, numbers)`: the step on one device of `DataParallel`.

    ε is β for the losses that have one (`objective.py`); `numbers` are the optimizer's, by default
    those of `training`. The batch's arrays are `[parts, rows, …]` on each device; parts are worked
    through in turn. Sums of loss, tokens and gradient are psummed and divided once, and each row
    has its own bits of dropout, so that any number of devices and parts makes the same update.
    """
    local_loss = make_local_loss(model, loss, sizes, bos, pad, teacher)

    def sums_and_gradient(params, batch: Batch, key, *rest):
        """Σ over this device's parts of ((loss, (tokens, nll)), gradient)."""
        differentiate = jax.value_and_grad(local_loss, has_aux=True)
        parts = batch.source.shape[0]
        first = jax.lax.axis_index(AXIS) * parts
        if parts == 1:
            return differentiate(params, jax.tree.map(lambda x: x[0], batch), key, *rest, first)

        def add(total, numbered):
            i, part = numbered
            one = differentiate(params, part, key, *rest, first + i)
            return jax.tree.map(jnp.add, total, one), None

        zeros = ((0.0, (0.0, 0.0)), jax.tree.map(jnp.zeros_like, params))
        zeros = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), zeros)
        return jax.lax.scan(add, zeros, (jnp.arange(parts), batch))[0]

    def step(
        state: TrainState,
        batch: Batch,
        seed,
        epsilon,
        rates: DropoutRates,
        data: LossData = LossData(),  # noqa: B008 - immutable
        numbers: Hyperparameters | None = None,
    ):
        numbers = Hyperparameters.of(training) if numbers is None else numbers
        optimizer = make_optimizer(training, numbers)
        rate = learning_rate(training, numbers.learning_rate)
        key = jax.random.fold_in(purpose_key(seed, _DROPOUT), state.step)
        summed = sums_and_gradient(state.params, batch, key, epsilon, rates, data)
        (total, (tokens, nll)), gradient = jax.lax.psum(summed, AXIS)
        gradient = jax.tree.map(lambda g: g / jnp.maximum(tokens, 1), gradient)
        norm = optax.global_norm(gradient)
        finite = jnp.isfinite(norm) & jnp.isfinite(total)

        def apply(s: TrainState) -> TrainState:
            updates, new_optimizer = optimizer.update(gradient, s.optimizer, s.params)
            params = optax.apply_updates(s.params, updates)
            ema = jax.tree.map(
                lambda average, p: training.ema_decay * average + (1 - training.ema_decay) * p,
                s.ema,
                params if s.ema else {},
            )
            none = jnp.zeros_like(s.skipped)
            return s._replace(
                params=params, optimizer=new_optimizer, ema=ema, updates=s.updates + 1, skipped=none
            )

        def skip(s: TrainState) -> TrainState:
            return s._replace(skipped=s.skipped + 1, skipped_total=s.skipped_total + 1)

        new = jax.lax.cond(finite, apply, skip, state)
        new = new._replace(step=state.step + 1)
        sums = StepSums(total, nll, tokens, norm, rate(state.updates), new.skipped)
        return new, sums

    return step
