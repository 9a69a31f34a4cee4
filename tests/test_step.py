"""One update: the same on any number of devices and parts; skipped when it is not finite."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import (
    MODEL,
    TRAINING,
    assert_close,
    leaf_errors,
    params_after,
    random_batch,
    random_params,
)

from nmt_ls.config import LossConfig
from nmt_ls.losses import convention, label_smoothed_cross_entropy, token_statistics
from nmt_ls.model import DropoutRates, graph_of, model_of
from nmt_ls.parallel import DataParallel, to_host
from nmt_ls.training.optimizer import learning_rate
from nmt_ls.training.step import evaluated_params, make_step, shift_right, state_from

SIZES, BOS, PAD = (44, 44), 2, 0
BATCH = random_batch(99, 10, source=6, target=7, empty=2)
PLAIN = dataclasses.replace(MODEL, dropout=0.0)
NO_DROPOUT = DropoutRates(*(np.float32(0) for _ in range(3)))


@jax.jit
def logits_on_batch(params):
    model = model_of(graph_of(PLAIN, *SIZES), params)
    memory = model.encode(BATCH.source, BATCH.source_lengths)
    return model.logits(model.decode(memory, shift_right(BATCH.target, BOS)))


@pytest.fixture(scope="module")
def alone() -> dict[str, np.ndarray]:
    return params_after(20)


@pytest.mark.parametrize(("devices", "parts"), [(1, 4), (2, 1), (8, 1), (8, 4)])
def test_devices_and_parts_make_the_same_update(alone: dict, devices: int, parts: int) -> None:
    found = params_after(20, devices, parts)
    errors = leaf_errors(found, alone)
    worst = max(errors, key=errors.get)
    assert errors[worst] <= 1e-5, (worst, errors[worst])
    assert_close(logits_on_batch(found), logits_on_batch(alone), 1e-5)
    start = random_params(PLAIN, *SIZES)
    assert min(leaf_errors(alone, start).values()) > 1e-3, "every parameter has moved"


def test_dropout_goes_by_the_row_not_by_the_device() -> None:
    # 32 rows, of which 29 have tokens, lie alike on 1 · 4 and on 2 · 2 parts.
    found, other = params_after(6, 1, 4, dropout=0.3), params_after(6, 2, 2, dropout=0.3)
    errors = leaf_errors(found, other)
    worst = max(errors, key=errors.get)
    assert errors[worst] <= 1e-5, (worst, errors[worst])
    assert min(leaf_errors(found, params_after(6, 1, 4)).values()) > 1e-4


class Stepper:
    """Steps on one device from given parameters."""

    def __init__(self, model, loss, training):
        self.parallel = DataParallel(1)
        self.fn = self.parallel.step(make_step(model, loss, training, SIZES, BOS, PAD))
        params = jax.tree.map(jnp.asarray, random_params(model, *SIZES))
        self.start = self.parallel.replicate(state_from(params, training))

    def __call__(self, state=None, epsilon=0.1, rates=NO_DROPOUT, seed=1, batch=BATCH):
        """(state, sums) after one step; the state that comes in stays usable."""
        state = jax.tree.map(jnp.copy, self.start if state is None else state)
        rows = self.parallel.split_rows(batch)
        return self.fn(state, rows, np.uint32(seed), np.float32(epsilon), rates)


@pytest.fixture(scope="module")
def stepper() -> Stepper:
    training = dataclasses.replace(TRAINING, ema_decay=0.75, clip_norm=0.0)
    return Stepper(MODEL, LossConfig(), training)


def equal(a, b) -> bool:
    leaves = zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    return all(np.array_equal(x, y) for x, y in leaves)


def test_sums_by_the_closed_form(stepper: Stepper) -> None:
    _, sums = stepper(epsilon=0.3)
    logits = logits_on_batch(stepper.start.params)
    where = np.arange(7) < BATCH.target_lengths[:, None]
    loss = label_smoothed_cross_entropy(logits, BATCH.target, 0.3, where=where)
    assert_close(sums.loss, jnp.sum(loss), 1e-6)
    nll = token_statistics(logits, BATCH.target, where).nll
    assert_close(sums.nll, jnp.sum(nll), 1e-6)
    assert int(sums.tokens) == BATCH.target_lengths.sum()
    assert float(sums.learning_rate) == pytest.approx(float(learning_rate(TRAINING)(0)))


def test_perplexity_is_the_same_to_the_bit_whatever_epsilon(stepper: Stepper) -> None:
    found = {float(stepper(epsilon=epsilon)[1].nll) for epsilon in (0.0, 0.1, 0.5)}
    assert len(found) == 1
    losses = {float(stepper(epsilon=epsilon)[1].loss) for epsilon in (0.0, 0.1, 0.5)}
    assert len(losses) == 3


def test_conventions_change_the_loss() -> None:
    stepper = Stepper(PLAIN, LossConfig(convention="joeynmt", z_loss=0.01), TRAINING)
    _, sums = stepper(epsilon=0.3)
    logits = logits_on_batch(stepper.start.params)
    where = np.arange(7) < BATCH.target_lengths[:, None]
    options = convention("joeynmt", SIZES[1], PAD)
    loss = label_smoothed_cross_entropy(
        logits, BATCH.target, 0.3, where=where, z_loss=0.01, **options
    )
    assert_close(sums.loss, jnp.sum(loss), 1e-6)


def test_a_gradient_that_is_not_finite_is_skipped(stepper: Stepper) -> None:
    first, _ = stepper()
    # ε is NaN, and with it the loss and every gradient.
    second, sums = stepper(first, epsilon=np.nan)
    assert not np.isfinite(sums.gradient_norm)
    assert int(sums.skipped) == 1
    for name in ("params", "optimizer", "ema", "updates"):
        assert equal(getattr(second, name), getattr(first, name)), name
    third, sums = stepper(second, epsilon=np.nan)
    assert int(sums.skipped) == 2
    fourth, sums = stepper(third)
    assert int(sums.skipped) == 0
    counters = [int(x) for x in (fourth.step, fourth.updates, fourth.skipped_total)]
    assert counters == [4, 2, 2]
    assert not equal(fourth.params, third.params)
    # The learning rate goes by updates.
    assert float(sums.learning_rate) == pytest.approx(float(learning_rate(TRAINING)(1)))


def test_the_moving_average_by_hand(stepper: Stepper) -> None:
    first, _ = stepper()
    second, _ = stepper(first)
    start = to_host(stepper.start.params)
    for name, average in to_host(evaluated_params(second)).items():
        one, two = np.asarray(first.params[name]), np.asarray(second.params[name])
        by_hand = 0.75 * (0.75 * start[name] + 0.25 * one) + 0.25 * two
        np.testing.assert_allclose(average, by_hand, rtol=1e-6, atol=1e-7)
    without = state_from(first.params, TRAINING)
    assert without.ema == {}
    assert evaluated_params(without) is without.params


def test_dropout_goes_by_seed_and_step(stepper: Stepper) -> None:
    rates = DropoutRates(np.float32(0.3), np.float32(0), np.float32(0))
    loss = float(stepper(rates=rates)[1].loss)
    assert loss == float(stepper(rates=rates)[1].loss)
    assert loss != float(stepper(rates=rates, seed=2)[1].loss)
    later = stepper.start._replace(step=stepper.start.step + 1)
    assert loss != float(stepper(later, rates=rates)[1].loss)
    assert loss != float(stepper()[1].loss)


def test_empty_batches_move_nothing_but_momentum(stepper: Stepper) -> None:
    empty = random_batch(0, 10, source=6, target=7, empty=10)
    state, sums = stepper(batch=empty)
    assert (float(sums.loss), float(sums.tokens), float(sums.gradient_norm)) == (0, 0, 0)
    assert equal(state.params, stepper.start.params)


def test_shifting_right() -> None:
    found = shift_right(jnp.asarray([[5, 6, 3], [7, 3, 0]]), 2)
    np.testing.assert_array_equal(found, [[2, 5, 6], [2, 7, 3]])
