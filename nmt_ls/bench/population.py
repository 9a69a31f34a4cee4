"""Time of a training step of several runs together, beside the same runs each by itself."""

from collections.abc import Callable
from statistics import median
from typing import Any

import jax
import numpy as np
from tabulate import tabulate

from nmt_ls.bench.machine import about, alternate, describe_machine, timed
from nmt_ls.bench.random_batch import PAD, random_batch
from nmt_ls.config import LossConfig, ModelConfig, TrainingConfig
from nmt_ls.data.batches import Batch
from nmt_ls.model import DropoutRates
from nmt_ls.parallel import DataParallel
from nmt_ls.training.objective import LossData
from nmt_ls.training.optimizer import Hyperparameters
from nmt_ls.training.population_step import (
    MemberNumbers,
    Shared,
    Way,
    default_way,
    make_population_step,
    stacked,
)
from nmt_ls.training.step import initial_state, make_step

ALONE = "each by itself, in turn"
MAP = "together, in turn (map)"
VMAP = "together, side by side (vmap)"

STEP_WANTED = 1.05
"""Time of a step together beside the sum of the steps alone: at most."""
COMPILATION_WANTED = 0.25
"""First call together beside as many first calls alone: at most."""

_BOS, _TOKENS = 2, 32
_SEEDS = 2


def bench_population(
    *,
    members: int = 6,
    width: int = 128,
    layers: int = 2,
    vocab_size: int = 2000,
    batch_tokens: int = 1024,
    repeats: int = 7,
) -> dict[str, Any]:
    """Times a training step of all members, each way in turn.

    Args:
      members: runs; half of them have another seed, and so another batch.
      width, layers, vocab_size: of the model; layers of the encoder, and of the decoder.
      batch_tokens: target positions of each batch, rows of 32.
      repeats: rounds, after one that does not count.

    Returns:
      machine, versions, settings; `chosen`: how `fit_population` would run them here; `ways`: for
      each its name, seconds (the median), repeats, first_seconds (of its first step, which
      compiles; of ALONE one run's); `ratios` as what, beside, ratio, wanted.

    Raises:
      ValueError: sizes or repeats under 1; a batch under one row.
    """
    settings = {
        "members": members, "width": width, "layers": layers, "vocab_size": vocab_size,
        "batch_tokens": batch_tokens, "repeats": repeats,
    }  # fmt: skip
    for name, value in settings.items():
        if value < 1:
            raise ValueError(f"{name}={value}: at least 1")
    if batch_tokens < _TOKENS:
        raise ValueError(f"batch_tokens={batch_tokens}: at least {_TOKENS}, one row")
    if vocab_size < 8:
        raise ValueError(f"vocab_size={vocab_size}: at least 8")
    if width % 4:
        raise ValueError(f"width={width}: a multiple of 4, the number of heads")
    result = about(settings, ("jax", "jaxlib", "optax"))
    result["machine"]["device"] = jax.devices()[0].device_kind
    bench = _Bench(members, width, layers, vocab_size, batch_tokens)
    candidates = {ALONE: bench.alone(), MAP: bench.together("map"), VMAP: bench.together("vmap")}
    # In the first call each compiles, the runs alone one for all.
    first = {name: timed(step) for name, step in candidates.items()}
    seconds = alternate({name: _timing(step) for name, step in candidates.items()}, repeats)
    middle = {name: median(times) for name, times in seconds.items()}
    first[ALONE] -= middle[ALONE] * (members - 1) / members
    result["chosen"] = {"map": MAP, "vmap": VMAP}[default_way()]
    result["ways"] = [
        {
            "name": name,
            "seconds": middle[name],
            "repeats": seconds[name],
            "first_seconds": first[name],
        }
        for name in candidates
    ]
    chosen = result["chosen"]
    result["ratios"] = [
        {
            "what": f"step, {chosen}",
            "beside": ALONE,
            "ratio": middle[chosen] / middle[ALONE],
            "wanted": STEP_WANTED,
        },
        {
            "what": f"first step, {chosen}",
            "beside": f"{members} first steps alone",
            "ratio": first[chosen] / (members * first[ALONE]),
            "wanted": COMPILATION_WANTED,
        },
    ]
    return result


def _timing(step: Callable[[], None]) -> Callable[[], float]:
    return lambda: timed(step)


class _Bench:
    """The runs and the ways to take a step with all of them."""

    def __init__(self, members: int, width: int, layers: int, vocab_size: int, batch_tokens: int):
        model = ModelConfig(
            encoder_layers=layers, decoder_layers=layers, width=width, heads=4,
            feed_forward=4 * width,
        )  # fmt: skip
        training = TrainingConfig(batch_tokens=batch_tokens, devices=1)
        sizes = (vocab_size, vocab_size)
        self.parallel = DataParallel(1)
        self.step = make_step(model, LossConfig(), training, sizes, _BOS, PAD)
        self.seeds = [i % _SEEDS for i in range(members)]
        self.smoothing = np.linspace(0, 0.3, members, dtype=np.float32)
        self.rates = DropoutRates(np.float32(model.dropout), np.float32(0), np.float32(0))
        self.numbers = Hyperparameters.of(training)
        kinds = min(members, _SEEDS)
        states = [initial_state(model, training, sizes, seed) for seed in range(kinds)]
        self.states = [jax.tree.map(np.asarray, states[seed]) for seed in self.seeds]
        rows = batch_tokens // _TOKENS
        self.batches = [
            random_batch(seed, rows, vocab_size, length=_TOKENS) for seed in range(kinds)
        ]

    def alone(self) -> Callable[[], None]:
        step = self.parallel.step(self.step)
        states = [self.parallel.replicate(state) for state in self.states]

        def run() -> None:
            sums = []
            for i, seed in enumerate(self.seeds):
                rows = self.parallel.split_rows(self.batches[seed])
                states[i], s = step(
                    states[i], rows, np.uint32(seed), self.smoothing[i], self.rates, LossData(),
                    self.numbers,
                )  # fmt: skip
                sums.append(s)
            jax.block_until_ready((states, sums))

        return run

    def together(self, way: Way) -> Callable[[], None]:
        step = self.parallel.step(make_population_step(self.step, way))
        states = [self.parallel.replicate(stacked(self.states))]
        members = len(self.seeds)

        def for_all(numbers: Any) -> Any:
            return jax.tree.map(lambda x: np.full(members, x, np.float32), numbers)

        numbers = MemberNumbers(
            np.array(self.seeds, np.uint32),
            self.smoothing,
            for_all(self.rates),
            for_all(self.numbers),
            np.array(self.seeds, np.int32),
            np.zeros(members, np.int32),
        )
        order = np.arange(members, dtype=np.int32)
        shared = Shared(numbers, order, np.int32(members), LossData())

        def run() -> None:
            split = [self.parallel.split_rows(batch) for batch in self.batches]
            batches = Batch(*(np.stack(x, axis=1) for x in zip(*split, strict=True)))
            states[0], sums = step(states[0], batches, shared)
            jax.block_until_ready((states, sums))

        return run


def describe(result: dict[str, Any]) -> str:
    """The result of `bench_population` as text."""
    s = result["settings"]
    alone = next(way for way in result["ways"] if way["name"] == ALONE)
    rows = [
        [
            way["name"] + (" — chosen here" if way["name"] == result["chosen"] else ""),
            f"{way['seconds'] / alone['seconds']:.2f}",
            f"{way['seconds']:.3f}",
            f"{way['first_seconds']:.1f}",
        ]
        for way in result["ways"]
    ]
    headers = ["", "time, ratio", "median (s)", "first step (s)"]
    table = tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * 3))
    ratios = tabulate(
        [
            [f"{r['what']} / {r['beside']}", f"{r['ratio']:.2f}", f"≤ {r['wanted']:g}"]
            for r in result["ratios"]
        ],
        ["ratio", "found", "asked for"],
        disable_numparse=True,
        colalign=("left", "right", "right"),
    )
    return (
        f"A training step of {s['members']} runs: width {s['width']}, {s['layers']} + "
        f"{s['layers']} layers, V = {s['vocab_size']:,}, {s['batch_tokens']:,} target positions "
        f"each;\nmedian of {s['repeats']} rounds in turn, on {result['machine']['device']}; the "
        f"first step compiles (alone: one run's)\n\n{table}\n\n{ratios}\n\n"
        f"{describe_machine(result)}"
    )
