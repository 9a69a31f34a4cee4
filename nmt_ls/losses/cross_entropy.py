"""Label-smoothed cross-entropy of integer labels in closed form: no one-hot, no soft targets.

With s = logits − max(logits), Z = Σ exp s, u the prior that receives ε and q the smoothed target
(`targets.py`):

    L = log Z − on_target·s_y − share·(u·s)        ∂L/∂logits = softmax(logits) − q

The backward pass reads the logits and two numbers a row; derivatives of any order are jax's own.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.ad_checkpoint import checkpoint_name
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from nmt_ls.losses.arguments import (
    broadcast,
    class_axis,
    constant_or_none,
    float_array,
    integer_labels,
    is_zero,
    loss_dtype,
    normalised_prior,
    row_mask,
    smoothing_of_rows,
)
from nmt_ls.losses.statistics import TokenStatistics, statistics_of_rows
from nmt_ls.losses.targets import cross_entropy_of_rows, smoothed_target


def label_smoothed_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    label_smoothing: ArrayLike = 0.1,
    *,
    where: ArrayLike | None = None,
    prior: ArrayLike | None = None,
    exclude_target: bool = False,
    subtract_entropy: bool = False,
    z_loss: ArrayLike = 0.0,
    axis: int = -1,
) -> Float[Array, "..."]:
    """Cross-entropy between smoothed one-hot targets and softmax(logits), one loss per token.

    Args:
      logits: `[..., V]`, any float type; arithmetic is in at least float32.
      labels: `[...]`, any integer type. Outside [0, V) the loss is NaN, unless masked.
      label_smoothing: ε in [0, 1]: a float, a traced scalar, or an array that broadcasts to labels.
      where: `[...]` or `[..., 1]`, selects rows (tokens). Rows where it is False have loss 0 and
        gradient exactly 0, whatever they hold (NaN, inf, label -100).
      prior: the distribution u that receives ε: None is uniform over V; otherwise non-negative
        weights that broadcast to logits and are normalised here. A constant (no gradient).
      exclude_target: True spreads ε over the other classes only.
      subtract_entropy: True subtracts the target distribution's entropy: the KL divergence.
      z_loss: adds `z_loss * logsumexp(logits)**2`.
      axis: the class axis of logits.

    Returns:
      `[...]` in nats, at least float32 (float64 for float64 logits). No reduction, as in optax.

    Raises:
      ValueError: a static ε outside [0, 1].
    """
    loss, _ = label_smoothed_cross_entropy_with_statistics(
        logits, labels, label_smoothing, where=where, prior=prior, exclude_target=exclude_target,
        subtract_entropy=subtract_entropy, z_loss=z_loss, axis=axis,
    )  # fmt: skip
    return loss


def label_smoothed_cross_entropy_with_statistics(
    logits: ArrayLike,
    labels: ArrayLike,
    label_smoothing: ArrayLike = 0.1,
    *,
    where: ArrayLike | None = None,
    prior: ArrayLike | None = None,
    exclude_target: bool = False,
    subtract_entropy: bool = False,
    z_loss: ArrayLike = 0.0,
    axis: int = -1,
) -> tuple[Float[Array, "..."], TokenStatistics]:
    """As `label_smoothed_cross_entropy`, with the hard-label statistics from the same pass."""
    logits = float_array("logits", logits)
    logits = jnp.moveaxis(logits, class_axis(axis, logits.ndim), -1)
    dtype, vocab_size = loss_dtype(logits.dtype), logits.shape[-1]
    labels = integer_labels(labels, logits.shape[:-1], "logits")
    mask = row_mask(where, labels.shape)
    epsilon = jnp.where(mask, smoothing_of_rows(label_smoothing, labels.shape, dtype), 0)
    # Wrapping of negative labels would silently train another class; NaN says it out loud.
    valid = (labels >= 0) & (labels < vocab_size)
    safe_labels = jnp.where(mask & valid, labels, 0).astype(jnp.int32)
    z = constant_or_none(z_loss, dtype)

    smoothed = not is_zero(label_smoothing)
    weights = None
    if prior is not None:
        weights = normalised_prior(_moved(prior, axis, logits.ndim), dtype, vocab_size)
        broadcast("prior", weights, logits.shape)
    sums = _sums_of_rows(logits, safe_labels, mask, weights, smoothed)
    if weights is None:
        prior_at_label = jnp.full(labels.shape, 1 / vocab_size, dtype)
    else:
        dense = jnp.broadcast_to(weights, logits.shape)
        prior_at_label = jnp.take_along_axis(dense, safe_labels[..., None], axis=-1)[..., 0]
    target = smoothed_target(
        epsilon, weights, prior_at_label, vocab_size,
        exclude_target=exclude_target, subtract_entropy=subtract_entropy,
    )  # fmt: skip
    log_z = sums.log_sum + sums.maximum
    loss = cross_entropy_of_rows(target, sums.log_sum, sums.gold, sums.spread, log_z, z)
    # A factor, so that the gradient is NaN as well; `mask` keeps that out of ε's gradient.
    loss = loss * jnp.where(valid | ~mask, 1, jnp.nan).astype(loss.dtype)
    statistics = statistics_of_rows(
        sums.log_sum, sums.gold, sums.weighted / sums.total, log_z, mask, valid
    )
    return jnp.where(mask, loss, 0), statistics


def _moved(prior: ArrayLike, axis: int, ndim: int) -> ArrayLike:
    """The prior with its classes last: it may have fewer axes than logits, as in broadcasting."""
    position = class_axis(axis, ndim) - ndim
    if isinstance(prior, jax.core.Tracer | jax.Array):
        return prior if -position > prior.ndim else jnp.moveaxis(prior, position, -1)
    known = np.asarray(prior)
    return known if -position > known.ndim else np.moveaxis(known, position, -1)


class _Sums(NamedTuple):
    """Sums over the classes of each row, s being its logits less their maximum."""

    maximum: Float[Array, "..."]
    total: Float[Array, "..."]
    """Σ exp s."""
    log_sum: Float[Array, "..."]
    """log Σ exp s."""
    gold: Float[Array, "..."]
    """s_y."""
    spread: Float[Array, "..."]
    """u·s; 0 where nothing is smoothed."""
    weighted: Float[Array, "..."]
    """Σ s exp s, for the entropy."""


# What the backward pass reads is the logits and one number a row: all else is made again, in the
# same loop that makes the gradient. Saved without this: the shifted logits and their exponentials.
@partial(
    jax.checkpoint,
    policy=jax.checkpoint_policies.save_only_these_names("maximum", "total"),
    static_argnums=4,
)
def _sums_of_rows(logits, labels, mask, prior, smoothed: bool) -> _Sums:
    # Mask before arithmetic: NaN in a masked row must not meet any sum, forwards or backwards.
    rows = jnp.where(mask[..., None], logits.astype(loss_dtype(logits.dtype)), 0)
    maximum = checkpoint_name(jax.lax.stop_gradient(jnp.max(rows, axis=-1)), "maximum")
    # Relative to its maximum a row is exact however large its offset.
    shifted = _less(rows, maximum)
    exponentials = jnp.exp(shifted)
    total = checkpoint_name(jnp.sum(exponentials, axis=-1), "total")
    gold = _gold(shifted, labels)
    if not smoothed:
        spread = jnp.zeros_like(gold)
    elif prior is None:
        spread = jnp.sum(shifted / shifted.shape[-1], axis=-1)
    else:  # a class without mass must not turn -inf into NaN
        spread = jnp.sum(jnp.where(prior > 0, prior * shifted, 0), axis=-1)
    weighted = jnp.sum(jnp.where(exponentials > 0, exponentials * shifted, 0), axis=-1)
    return _Sums(maximum, total, jnp.log(total), gold, spread, jax.lax.stop_gradient(weighted))


@jax.custom_jvp
def _less(rows, maximum):
    """rows − maximum, at least the type's lowest number where the logits themselves are finite."""
    difference = rows - maximum[..., None]
    lowest = jnp.finfo(rows.dtype).min
    return jnp.where(jnp.isfinite(rows), jnp.maximum(difference, lowest), difference)


@_less.defjvp
def _(primals, tangents):
    return _less(*primals), tangents[0] - tangents[1][..., None]


@jax.custom_jvp
def _gold(rows, labels):
    """rows at the labels."""
    return jnp.take_along_axis(rows, labels[..., None], axis=-1)[..., 0]


@_gold.defjvp
def _(primals, tangents):
    # By comparing, which becomes a part of the loop that makes the gradient; a gather's own
    # derivative is a scatter into zeros of the logits' size.
    rows, labels = primals
    hot = jnp.arange(rows.shape[-1], dtype=jnp.int32) == labels[..., None]
    return _gold(rows, labels), jnp.sum(jnp.where(hot, tangents[0], 0), axis=-1)
