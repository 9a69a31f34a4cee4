"""A member of a population is the same run alone, whichever way members run."""

import dataclasses
from functools import lru_cache

import jax
import numpy as np
import pytest
from tiny import MODEL, TRAINING, assert_close, leaf_errors, random_batch

from nmt_ls.config import Config, LossConfig
from nmt_ls.data.batches import Batch
from nmt_ls.model import DropoutRates, graph_of, model_of
from nmt_ls.parallel import to_host
from nmt_ls.training.objective import LossData
from nmt_ls.training.optimizer import Hyperparameters
from nmt_ls.training.population_step import MemberNumbers, Shared, Way, stacked
from nmt_ls.training.programs import (
    compiled_population_step,
    compiled_step,
    decisive,
    decisive_of_all,
)
from nmt_ls.training.step import StepSums, TrainState, initial_state, shift_right

SIZES, BOS, PAD, STEPS = (44, 44), 2, 0, 50
MODEL = dataclasses.replace(MODEL, activation_dropout=0.05)
SEEDS = [1, 2]
PRIORS = np.random.default_rng(5).random((2, 44), np.float32)


def config(seed: int, epsilon: float, rate: float, decay: float, dropout: float) -> Config:
    return Config(
        seed=seed,
        model=dataclasses.replace(MODEL, dropout=dropout),
        loss=LossConfig(label_smoothing=epsilon, prior="unigram"),
        training=dataclasses.replace(
            TRAINING, learning_rate=rate, weight_decay=decay, devices=2, warmup_steps=10
        ),
    )


# Different in all that is data; the last has no dropout and no decay, in a program that has both.
CONFIGS = [
    config(1, 0.0, 3e-3, 0.01, 0.1),
    config(1, 0.2, 1e-3, 0.1, 0.3),
    config(2, 0.1, 2e-3, 0.01, 0.1),
    config(2, 0.1, 3e-3, 0.0, 0.0),
]
OF_LOSS_DATA = [0, 1, 1, 0]


@lru_cache
def batch_of(seed: int, step: int) -> Batch:
    return random_batch(1000 * seed + step, 8, source=6, target=7)


def rates_of(config: Config) -> DropoutRates:
    m = config.model
    rates = (m.dropout, m.attention_dropout, m.activation_dropout)
    return DropoutRates(*(np.float32(r) for r in rates))


def alone(index: int) -> tuple[TrainState, list[StepSums]]:
    """State and sums of every step of a run by itself."""
    c = CONFIGS[index]
    parallel, step = compiled_step(*decisive(c), SIZES, BOS, PAD)
    state = parallel.replicate(initial_state(c.model, c.training, SIZES, c.seed))
    data = parallel.replicate(LossData(prior=PRIORS[OF_LOSS_DATA[index]]))
    found = []
    for k in range(STEPS):
        rows = parallel.split_rows(batch_of(c.seed, k))
        epsilon = np.float32(c.loss.label_smoothing)
        numbers = Hyperparameters.of(c.training)
        state, sums = step(state, rows, np.uint32(c.seed), epsilon, rates_of(c), data, numbers)
        found.append(to_host(sums))
    return to_host(state), found


def columns(rows: list) -> np.ndarray:
    return np.array(rows, np.float32).T.copy()


def together(way: Way, steps: int = STEPS, active: int = 4) -> tuple[TrainState, list[StepSums]]:
    """The same of all runs in one program, with a leading axis of members."""
    program = decisive_of_all(CONFIGS)
    parallel, step = compiled_population_step(*program, SIZES, BOS, PAD, None, way)
    states = [initial_state(program[0], program[2], SIZES, c.seed) for c in CONFIGS]
    states = parallel.replicate(stacked(states))
    numbers = MemberNumbers(
        np.array([c.seed for c in CONFIGS], np.uint32),
        np.array([c.loss.label_smoothing for c in CONFIGS], np.float32),
        DropoutRates(*columns([rates_of(c) for c in CONFIGS])),
        Hyperparameters(*columns([Hyperparameters.of(c.training) for c in CONFIGS])),
        np.array([SEEDS.index(c.seed) for c in CONFIGS], np.int32),
        np.array(OF_LOSS_DATA, np.int32),
    )
    order = np.array([3, 0, 2, 1], np.int32)
    shared = Shared(numbers, order, np.int32(active), parallel.replicate(LossData(prior=PRIORS)))
    found = []
    for k in range(steps):
        split = [parallel.split_rows(batch_of(seed, k)) for seed in SEEDS]
        batches = Batch(*(np.stack(x, axis=1) for x in zip(*split, strict=True)))
        states, sums = step(states, batches, shared)
        found.append(to_host(sums))
    return to_host(states), found


@pytest.fixture(scope="module")
def runs() -> list[tuple[TrainState, list[StepSums]]]:
    return [alone(i) for i in range(len(CONFIGS))]


PLAIN = dataclasses.replace(MODEL, dropout=0.0, activation_dropout=0.0)
FIXED = random_batch(99, 10, source=6, target=7)


@jax.jit
def logits(params):
    model = model_of(graph_of(PLAIN, *SIZES), params)
    memory = model.encode(FIXED.source, FIXED.source_lengths)
    return model.logits(model.decode(memory, shift_right(FIXED.target, BOS)))


@pytest.mark.parametrize("way", ["map", "vmap"])
def test_members_are_the_runs_alone(runs: list, way: Way) -> None:
    """50 steps with dropout and warm-up on two devices: ‖a − b‖/‖b‖ ≤ 1e-5 for every array."""
    states, sums = together(way)
    for i, (state, alone_sums) in enumerate(runs):
        assert int(states.step[i]) == int(states.updates[i]) == STEPS
        found = {name: x[i] for name, x in states.params.items()}
        errors = leaf_errors(found, state.params)
        worst = max(errors, key=errors.get)
        assert errors[worst] <= 1e-5, (i, worst, errors[worst])
        assert_close(logits(found), logits(state.params), 1e-5)
        leaves = [x[i] for x in jax.tree.leaves(states.optimizer)]
        for a, b in zip(leaves, jax.tree.leaves(state.optimizer), strict=True):
            assert np.linalg.norm(a - b) <= 1e-4 * np.linalg.norm(b)
        for field in ("loss", "nll", "tokens", "learning_rate"):
            a = [getattr(s, field)[i] for s in sums]
            assert_close(a, [getattr(s, field) for s in alone_sums], 1e-5)
    first, last = (leaf_errors(runs[0][0].params, runs[k][0].params) for k in (1, 3))
    assert min(first.values()) > 1e-3, "members differ"
    assert min(last.values()) > 1e-3


def test_members_that_are_left_out_stay_as_they_were() -> None:
    states, sums = together("map", steps=3, active=2)
    assert states.step.tolist() == [3, 0, 0, 3]
    start = initial_state(CONFIGS[1].model, CONFIGS[1].training, SIZES, 1)
    for name, value in start.params.items():
        np.testing.assert_array_equal(states.params[name][1], value)
    all_of_them, their_sums = together("map", steps=3)
    for i in (0, 3):
        for a, b in zip(jax.tree.leaves(states), jax.tree.leaves(all_of_them), strict=True):
            np.testing.assert_array_equal(a[i], b[i])
        assert sums[2].loss[i] == their_sums[2].loss[i] > 0
    assert sums[2].tokens[1] == 0


def test_stacking_takes_the_structure_of_the_first() -> None:
    a = {"x": np.array([1, 2]), "empty": {}}
    b = {"x": np.array([3, 4]), "empty": ()}
    found = stacked([a, b])
    assert found["empty"] == {}
    np.testing.assert_array_equal(found["x"], [[1, 2], [3, 4]])
