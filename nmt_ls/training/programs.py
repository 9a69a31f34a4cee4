"""Compiled training steps, shared by all runs of a process that need the same one."""

import dataclasses
from collections.abc import Sequence
from functools import lru_cache

from nmt_ls.config import Config, LossConfig, ModelConfig, TrainingConfig
from nmt_ls.parallel import DataParallel
from nmt_ls.training.optimizer import depends_on_max_steps
from nmt_ls.training.population_step import Way, make_population_step
from nmt_ls.training.step import make_step

_DECISIVE = (
    *("accumulation", "optimizer", "schedule", "warmup_steps", "final_learning_rate"),
    *("beta1", "beta2", "epsilon", "clip_norm", "ema_decay", "devices"),
)
"""Training settings that are constants of the compiled step."""

_DATA_OF_LOSS = (
    *("label_smoothing", "final_label_smoothing", "schedule", "beta"),
    *("prior", "prior_temperature", "class_weight_power", "graduated_run"),
    "teacher_run",
)
"""Loss settings that reach the step as numbers and arrays."""


@lru_cache(maxsize=4)
def compiled_step(
    model: ModelConfig,
    loss: LossConfig,
    training: TrainingConfig,
    sizes: tuple[int, int],
    bos: int,
    pad: int,
    teacher: ModelConfig | None = None,
):
    """The parallel step; runs that differ only in what is data of it share one compiled program.

    The step must be given the run's own `Hyperparameters`: `decisive` has taken them out.
    """
    parallel = DataParallel(training.devices)
    return parallel, parallel.step(make_step(model, loss, training, sizes, bos, pad, teacher))


@lru_cache(maxsize=4)
def compiled_population_step(
    model: ModelConfig,
    loss: LossConfig,
    training: TrainingConfig,
    sizes: tuple[int, int],
    bos: int,
    pad: int,
    teacher: ModelConfig | None,
    way: Way,
):
    """The parallel step of several runs; it compiles once for each number of them and shape."""
    parallel = DataParallel(training.devices)
    step = make_step(model, loss, training, sizes, bos, pad, teacher)
    return parallel, parallel.step(make_population_step(step, way))


def on_or_off(rate: float) -> float:
    """What stands for a number that is data as long as it is not 0."""
    return 0.5 if rate else 0.0


def decisive(config: Config) -> tuple[ModelConfig, LossConfig, TrainingConfig]:
    """The parts of a configuration that the compiled step depends on; the rest is data."""

    m = config.model
    model = dataclasses.replace(
        m,
        dropout=on_or_off(m.dropout),
        attention_dropout=on_or_off(m.attention_dropout),
        activation_dropout=on_or_off(m.activation_dropout),
    )
    unused = LossConfig()
    loss = dataclasses.replace(
        config.loss, **{name: getattr(unused, name) for name in _DATA_OF_LOSS}
    )
    t = config.training
    training = TrainingConfig(
        # Elsewhere the number of steps decides nothing about any one of them.
        max_steps=t.max_steps if depends_on_max_steps(t) else 1,
        weight_decay=on_or_off(t.weight_decay),
        **{name: getattr(t, name) for name in _DECISIVE},
    )
    return model, loss, training


def decisive_of_all(
    configs: Sequence[Config],
) -> tuple[ModelConfig, LossConfig, TrainingConfig]:
    """The program that several runs share: what one of them needs is on for all.

    A rate or a decay of 0 changes no number where it is on.
    """
    all_of_them = [decisive(config) for config in configs]
    model, loss, training = all_of_them[0]
    model = dataclasses.replace(
        model,
        dropout=max(m.dropout for m, _, _ in all_of_them),
        activation_dropout=max(m.activation_dropout for m, _, _ in all_of_them),
    )
    decay = max(t.weight_decay for _, _, t in all_of_them)
    return model, loss, dataclasses.replace(training, weight_decay=decay)
