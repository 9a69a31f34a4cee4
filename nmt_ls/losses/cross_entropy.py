"""Label-smoothed cross-entropy of integer labels in closed form: no one-hot, no soft targets.

With u the prior that receives ε, s = logits − max(logits) and Z = Σ exp s:

    target included:  L = log Z − (1−ε) s_y − ε u·s
    target excluded:  L = log Z − (1−ε) s_y − ε/(1−u_y) (u·s − u_y s_y)

Szegedy et al. 2016 (arXiv 1512.00567, §7) is the first with uniform u; fairseq, tensor2tensor and
T5X are the second. Shifting by the row maximum first keeps the sums exact for large offsets.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from nmt_ls.losses.statistics import (
    TokenStatistics,
    loss_dtype,
    row_mask,
    statistics_of_rows,
    whole_labels,
)


def label_smoothed_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    label_smoothing: ArrayLike = 0.1,
    *,
    where: ArrayLike | None = None,
    prior: ArrayLike | None = None,
    exclude_target: bool = False,
    subtract_entropy: bool = False,
    z_loss: float = 0.0,
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
    z_loss: float = 0.0,
    axis: int = -1,
) -> tuple[Float[Array, "..."], TokenStatistics]:
    """As `label_smoothed_cross_entropy`, with the hard-label statistics from the same pass."""
    if isinstance(label_smoothing, int | float) and not 0 <= label_smoothing <= 1:
        raise ValueError(f"label_smoothing={label_smoothing} is outside [0, 1]")
    logits = jnp.moveaxis(jnp.asarray(logits), axis, -1)
    logits = logits.astype(loss_dtype(logits.dtype))
    labels = whole_labels(labels)
    mask = row_mask(where, labels.shape)
    vocab_size = logits.shape[-1]
    eps = jnp.broadcast_to(jnp.asarray(label_smoothing, logits.dtype), labels.shape)

    # Mask before arithmetic: NaN in a masked row must not meet any sum, forwards or backwards.
    logits = jnp.where(mask[..., None], logits, 0)
    # Wrapping of negative labels would silently train another class; NaN says it out loud.
    valid = (labels >= 0) & (labels < vocab_size)
    safe_labels = jnp.where(mask & valid, labels, 0).astype(jnp.int32)

    shift = jax.lax.stop_gradient(jnp.max(logits, axis=-1, keepdims=True))
    # A row of -inf has no maximum to subtract; its loss is NaN by 0/0, as it should be.
    shifted = logits - shift
    log_sum = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
    gold = jnp.take_along_axis(shifted, safe_labels[..., None], axis=-1)[..., 0]

    # `mean_prior` is u·s, `gold_prior` u_y. A class without mass must not turn -inf into NaN.
    if prior is None:
        mean_prior = jnp.mean(shifted, axis=-1)
        gold_prior = jnp.full_like(gold, 1 / vocab_size)
        weights = None
    else:
        weights = jax.lax.stop_gradient(jnp.asarray(prior, logits.dtype))
        weights = weights / jnp.sum(weights, axis=-1, keepdims=True)
        mean_prior = jnp.sum(jnp.where(weights > 0, weights * shifted, 0), axis=-1)
        dense = jnp.broadcast_to(weights, shifted.shape)
        gold_prior = jnp.take_along_axis(dense, safe_labels[..., None], axis=-1)[..., 0]

    if exclude_target:
        # With no class left to receive it (V = 1, say), the mass stays on the target.
        others = 1 - gold_prior
        share = jnp.where(others > 0, eps / jnp.where(others > 0, others, 1), 0)
        on_target = jnp.where(others > 0, 1 - eps, 1) - share * gold_prior
    else:
        share, on_target = eps, 1 - eps
    spread = _times(share, mean_prior)
    kept = _times(on_target, gold)
    loss = log_sum - kept - spread

    if subtract_entropy:
        loss = loss - _target_entropy(share, on_target, gold_prior, weights, vocab_size)
    log_z = log_sum + shift[..., 0]
    if z_loss:
        loss = loss + z_loss * log_z**2
    # A factor, so that the gradient is NaN as well; `mask` keeps that out of ε's gradient.
    loss = loss * jnp.where(valid | ~mask, 1, jnp.nan).astype(loss.dtype)
    return jnp.where(mask, loss, 0), statistics_of_rows(shifted, log_sum, gold, log_z, mask, valid)


def _times(weight, value):
    """weight·value, 0 where the weight is 0 and the value infinite; ∂/∂weight stays exact."""
    return weight * jnp.where((weight == 0) & ~jnp.isfinite(value), 0, value)


def _target_entropy(share, on_target, gold_prior, weights, vocab_size):
    """Entropy H(q) in nats of q = on_target·[y] + share·u, where 0·log 0 is 0."""

    def xlogx(x):
        positive = x > 0
        return jnp.where(positive, x * jnp.log(jnp.where(positive, x, 1)), 0)

    # Σ_v xlogx(share·u_v) = share·Σ u log u + xlogx(share)·Σ u, then the target's own term.
    if weights is None:
        u_log_u = -jnp.log(jnp.asarray(float(vocab_size), share.dtype))
    else:
        u_log_u = jnp.sum(xlogx(weights), axis=-1)
    everywhere = share * u_log_u + xlogx(share)
    return -(everywhere - xlogx(share * gold_prior) + xlogx(on_target + share * gold_prior))
