"""The optimizer: an optax chain, and learning rates as functions of the update's number."""

from typing import NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from nmt_ls.config import TrainingConfig


class Hyperparameters(NamedTuple):
    """What the optimizer takes as numbers, which may be traced: changing them compiles nothing."""

    learning_rate: ArrayLike
    """The peak."""
    weight_decay: ArrayLike
    """Read where the configuration's is not 0 (that decides whether there is a decay at all)."""

    @classmethod
    def of(cls, config: TrainingConfig) -> Self:
        """Those of a configuration."""
        decay = config.weight_decay if config.optimizer == "adamw" else 0.0
        return cls(np.float32(config.learning_rate), np.float32(decay))


def learning_rate(config: TrainingConfig, peak: ArrayLike | None = None) -> optax.Schedule:
    """Linear warm-up to the peak, then the configured decay. The first update has rate > 0.

    inverse_sqrt is Vaswani et al. 2017 (§5.3) scaled to reach the peak after the warm-up.

    Args:
      config: the schedule.
      peak: a number, which may be traced; None: `config.learning_rate`.
    """
    peak = config.learning_rate if peak is None else peak
    final = config.final_learning_rate
    warmup, steps = config.warmup_steps, config.max_steps

    def schedule(count):
        update = jnp.asarray(count, jnp.float32) + 1
        rise = jnp.minimum(update / warmup, 1.0) if warmup else 1.0
        progress = jnp.clip((update - warmup) / max(steps - warmup, 1), 0.0, 1.0)
        if config.schedule == "inverse_sqrt":
            return peak * rise * jnp.sqrt(max(warmup, 1) / jnp.maximum(update, max(warmup, 1)))
        if config.schedule == "linear":
            return rise * (final + (peak - final) * (1 - progress))
        if config.schedule == "cosine":
            return rise * (final + (peak - final) * 0.5 * (1 + jnp.cos(jnp.pi * progress)))
        return peak * rise * jnp.ones(())

    return schedule


def depends_on_max_steps(config: TrainingConfig) -> bool:
    """Whether changing `max_steps` changes the learning rate of earlier steps."""
    return config.schedule in ("cosine", "linear")


def _decayed(params):
    # Norms and biases are vectors; decaying them shrinks scales for no benefit.
    return jax.tree.map(lambda p: p.ndim > 1, params)


def make_optimizer(
    config: TrainingConfig, numbers: Hyperparameters | None = None
) -> optax.GradientTransformation:
    """Adam or AdamW (Loshchilov & Hutter 2019), after clipping by the global norm.

    The structure of its state depends on the configuration alone.

    Args:
      config: all but `numbers`.
      numbers: may be traced; None: the configuration's.
    """
    numbers = Hyperparameters.of(config) if numbers is None else numbers
    clip = optax.clip_by_global_norm(config.clip_norm) if config.clip_norm else optax.identity()
    decays = config.optimizer == "adamw" and config.weight_decay > 0
    return optax.chain(
        clip,
        optax.scale_by_adam(config.beta1, config.beta2, config.epsilon),
        optax.add_decayed_weights(numbers.weight_decay, _decayed) if decays else optax.identity(),
        optax.scale_by_learning_rate(learning_rate(config, numbers.learning_rate)),
    )
