"""Compiled training steps, shared by all runs of a process that need the same one."""

import dataclasses
from functools import lru_cache

from nmt_ls.config import Config, LossConfig, ModelConfig, TrainingConfig
from nmt_ls.parallel import DataParallel
from nmt_ls.training.optimizer import depends_on_max_steps
from nmt_ls.training.step import make_step


@lru_cache(maxsize=4)
def compiled_step(
    model: ModelConfig,
    loss: LossConfig,
    training: TrainingConfig,
    sizes: tuple[int, int],
    bos: int,
    pad: int,
):
    """The parallel step; runs that differ only in ε, seed or data share one compiled program."""
    parallel = DataParallel(training.devices)
    return parallel, parallel.step(make_step(model, loss, training, sizes, bos, pad))


def decisive(config: Config) -> tuple[ModelConfig, LossConfig, TrainingConfig]:
    """The parts of a configuration that the compiled step depends on; the rest is data."""

    def on_or_off(rate: float) -> float:
        return 0.5 if rate else 0.0

    m = config.model
    model = dataclasses.replace(
        m,
        dropout=on_or_off(m.dropout),
        attention_dropout=on_or_off(m.attention_dropout),
        activation_dropout=on_or_off(m.activation_dropout),
    )
    loss = dataclasses.replace(
        config.loss, label_smoothing=0.0, final_label_smoothing=0.0, schedule="constant"
    )
    t = config.training
    training = TrainingConfig(
        accumulation=t.accumulation,
        optimizer=t.optimizer,
        learning_rate=t.learning_rate,
        schedule=t.schedule,
        warmup_steps=t.warmup_steps,
        final_learning_rate=t.final_learning_rate,
        beta1=t.beta1,
        beta2=t.beta2,
        epsilon=t.epsilon,
        weight_decay=t.weight_decay,
        clip_norm=t.clip_norm,
        ema_decay=t.ema_decay,
        devices=t.devices,
        # Elsewhere the number of steps decides nothing about any one of them.
        max_steps=t.max_steps if depends_on_max_steps(t) else 1,
    )
    return model, loss, training
