"""Schedules, decay and clipping by hand."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nmt_ls.config import TrainingConfig
from nmt_ls.training.optimizer import (
    Hyperparameters,
    depends_on_max_steps,
    learning_rate,
    make_optimizer,
)

BASE = TrainingConfig(
    learning_rate=0.4, final_learning_rate=0.1, warmup_steps=4, max_steps=12, clip_norm=0.0
)


def config(**fields: object) -> TrainingConfig:
    return dataclasses.replace(BASE, **fields)


def rates(updates: list[int], **fields: object) -> list[float]:
    """Learning rates of the given updates, counted from 1."""
    schedule = learning_rate(config(**fields))
    return [float(schedule(n - 1)) for n in updates]


def test_inverse_sqrt() -> None:
    found = rates([1, 2, 4, 5, 16, 64], schedule="inverse_sqrt")
    np.testing.assert_allclose(found, [0.1, 0.2, 0.4, 0.4 * math.sqrt(4 / 5), 0.2, 0.1], rtol=1e-6)


def test_linear() -> None:
    # From 0.4 at update 4 to 0.1 at update 12.
    found = rates([4, 6, 8, 12, 30], schedule="linear")
    np.testing.assert_allclose(found, [0.4, 0.325, 0.25, 0.1, 0.1], rtol=1e-6)


def test_cosine() -> None:
    found = rates([1, 4, 6, 8, 12, 30], schedule="cosine")
    at_6 = 0.1 + 0.3 * 0.5 * (1 + math.cos(math.pi / 4))
    np.testing.assert_allclose(found, [0.1, 0.4, at_6, 0.25, 0.1, 0.1], rtol=1e-6)


def test_constant() -> None:
    np.testing.assert_allclose(
        rates([1, 2, 4, 99], schedule="constant"), [0.1, 0.2, 0.4, 0.4], rtol=1e-6
    )


@pytest.mark.parametrize("schedule", ["inverse_sqrt", "linear", "cosine", "constant"])
def test_without_warmup_the_first_update_has_the_peak(schedule: str) -> None:
    found = rates([1, 2], schedule=schedule, warmup_steps=0, max_steps=10**6)
    assert found[0] == pytest.approx(0.4, rel=1e-5)
    assert found[1] == pytest.approx(
        0.4 / math.sqrt(2) if schedule == "inverse_sqrt" else 0.4, rel=1e-4
    )


def test_which_schedules_depend_on_their_end() -> None:
    depends = {s: depends_on_max_steps(config(schedule=s)) for s in ("cosine", "linear")}
    assert depends == {"cosine": True, "linear": True}
    for schedule in ("inverse_sqrt", "constant"):
        assert not depends_on_max_steps(config(schedule=schedule))
        assert rates([3, 9], schedule=schedule) == rates([3, 9], schedule=schedule, max_steps=99)


PARAMS = {"kernel": jnp.full((2, 3), 2.0), "bias": jnp.full(3, 2.0)}


def first_update(gradient: dict, **fields: object) -> dict:
    optimizer = make_optimizer(config(schedule="constant", warmup_steps=0, **fields))
    return optimizer.update(gradient, optimizer.init(PARAMS), PARAMS)[0]


def test_adam_by_hand() -> None:
    optimizer = make_optimizer(config(schedule="constant", warmup_steps=0, epsilon=0.5))
    state = optimizer.init({"w": jnp.zeros(1)})
    m = v = 0.0
    for n, g in enumerate((3.0, -1.0, 0.5), 1):
        updates, state = optimizer.update({"w": jnp.full(1, g)}, state, {"w": jnp.zeros(1)})
        m, v = 0.9 * m + 0.1 * g, 0.98 * v + 0.02 * g * g
        expected = -0.4 * (m / (1 - 0.9**n)) / (math.sqrt(v / (1 - 0.98**n)) + 0.5)
        assert float(updates["w"][0]) == pytest.approx(expected, rel=1e-5)


def test_decay_is_decoupled_and_for_matrices_only() -> None:
    gradient = {"kernel": jnp.full((2, 3), 7.0), "bias": jnp.full(3, 7.0)}
    plain = first_update(gradient)
    decayed = first_update(gradient, weight_decay=0.5)
    # −rate · decay · parameter, whatever the gradient.
    np.testing.assert_allclose(decayed["kernel"] - plain["kernel"], -0.4 * 0.5 * 2.0, rtol=1e-5)
    np.testing.assert_array_equal(decayed["bias"], plain["bias"])
    adam = first_update(gradient, weight_decay=0.5, optimizer="adam")
    np.testing.assert_array_equal(adam["kernel"], plain["kernel"])


def test_clipping_by_the_global_norm() -> None:
    gradient = {"kernel": jnp.full((2, 3), 4.0), "bias": jnp.full(3, 4.0)}  # norm 12
    # Adam's first update is g/(|g| + ε): a large ε shows the size of g.
    whole = first_update(gradient, epsilon=1e3)
    clipped = first_update(gradient, epsilon=1e3, clip_norm=3.0)
    np.testing.assert_allclose(clipped["kernel"], whole["kernel"] / 4, rtol=1e-2)
    np.testing.assert_allclose(float(clipped["bias"][0]), -0.4 * 1.0 / (1.0 + 1e3), rtol=1e-4)
    small = first_update(gradient, epsilon=1e3, clip_norm=13.0)
    np.testing.assert_array_equal(small["kernel"], whole["kernel"])


def test_traced_numbers_are_the_constants_and_keep_the_state() -> None:
    """Weight decay and peak as data: same updates, same state as those of checkpoints written."""
    own = config(schedule="linear", weight_decay=0.3)
    other = config(schedule="linear", weight_decay=0.9, learning_rate=7.0)
    gradient = {"kernel": jnp.full((2, 3), 7.0), "bias": jnp.full(3, -2.0)}
    constant = make_optimizer(own)
    traces = []

    @jax.jit
    def traced(state, numbers):
        traces.append(numbers)
        return make_optimizer(other, numbers).update(gradient, state, PARAMS)

    state = found_state = constant.init(PARAMS)
    structure = jax.tree.structure(make_optimizer(other).init(PARAMS))
    assert jax.tree.structure(state) == structure
    for _ in range(6):
        expected, state = constant.update(gradient, state, PARAMS)
        found, found_state = traced(found_state, Hyperparameters.of(own))
        assert jax.tree.structure(found_state) == structure
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-6)
    before = len(traces)
    slower = Hyperparameters(np.float32(0.2), np.float32(0.3))
    assert not np.allclose(traced(found_state, slower)[0]["kernel"], found["kernel"], rtol=0.1)
    assert len(traces) == before
