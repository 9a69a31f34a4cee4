"""Compiled training steps, shared by all runs of a process that need the same one."""

import dataclasses
from functools import lru_cache

from nmt_ls.config import Config, LossConfig, ModelConfig, TrainingConfig
from nmt_ls.parallel import DataParallel
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
    defaults = TrainingConfig()
    neutral: tuple[str, ...] = (
        "shapes",
        "batch_tokens",
        "log_every",
        "validate_every",
        "validate_bleu",
    )
    neutral += ("checkpoint_every", "keep_last", "keep_best", "best_metric", "patience")
    neutral += ("average_last", "max_skipped", "init_from", "tensorboard")
    training = dataclasses.replace(
        config.training, **{name: getattr(defaults, name) for name in neutral}
    )
    return model, loss, training
