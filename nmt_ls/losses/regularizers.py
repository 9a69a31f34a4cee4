"""Entropy regularisation: the confidence penalty and the family between it and label smoothing.

With the generalised entropy regularisation of Meister et al. 2020 (arXiv 2005.00820) a loss is
nll + β·D_α(u‖p), where D_α is the skew Jensen divergence

    D_α(u‖p) = [(1−α)·KL(u‖m) + α·KL(p‖m)] / (α(1−α)),      m = (1−α)·u + α·p

whose limits are KL(p‖u) at α = 0 (the confidence penalty of Pereyra et al. 2017) and KL(u‖p) at
α = 1 (label smoothing: β = ε/(1−ε) gives its loss over 1−ε, less a constant).
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from nmt_ls.losses.arguments import (
    float_array,
    integer_labels,
    loss_dtype,
    normalised_prior,
    row_mask,
)
from nmt_ls.losses.targets import times


def generalized_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    beta: ArrayLike,
    alpha: float,
    *,
    where: ArrayLike | None = None,
    prior: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """nll + β·D_α(u‖p) of each token, in nats; at least float32.

    It holds several arrays of the logits' size; `linear_loss` keeps them to a chunk of rows.

    Args:
      logits: `[..., V]`.
      labels: `[...]`; outside [0, V) the loss is NaN, unless masked.
      beta: β ≥ 0, a number (may be traced) or `[...]`.
      alpha: α in [0, 1], a constant: 0 is the confidence penalty, 1 label smoothing.
      where: `[...]` or `[..., 1]`, rows that count; the others have loss and gradient 0.
      prior: u, weights that broadcast to logits; None is uniform.

    Example:
      >>> logits, label = jnp.log(jnp.array([0.5, 0.25, 0.25])), 0
      >>> generalized_entropy(logits, label, 0.0, 0.5)  # −ln 0.5
      Array(0.6931472, dtype=float32)

    Raises:
      ValueError: α outside [0, 1]; arguments of a wrong shape or value.
    """
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha={alpha} is outside [0, 1]")
    logits = float_array("logits", logits)
    dtype, vocab_size = loss_dtype(logits.dtype), logits.shape[-1]
    labels = integer_labels(labels, logits.shape[:-1], "logits")
    mask = row_mask(where, labels.shape)
    # Mask before arithmetic: NaN in a masked row must not meet any sum, forwards or backwards.
    log_p = jax.nn.log_softmax(jnp.where(mask[..., None], logits.astype(dtype), 0), axis=-1)
    valid = (labels >= 0) & (labels < vocab_size)
    safe_labels = jnp.where(mask & valid, labels, 0).astype(jnp.int32)
    nll = -jnp.take_along_axis(log_p, safe_labels[..., None], axis=-1)[..., 0]
    if prior is None:
        u = jnp.asarray(1 / vocab_size, dtype)
    else:
        u = normalised_prior(prior, dtype, vocab_size)
    loss = nll + times(jnp.asarray(beta, dtype), _divergence(u, log_p, alpha))
    loss = loss * jnp.where(valid | ~mask, 1, jnp.nan).astype(dtype)
    return jnp.where(mask, loss, 0)


def confidence_penalty(
    logits: ArrayLike,
    labels: ArrayLike,
    beta: ArrayLike,
    *,
    where: ArrayLike | None = None,
    prior: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """nll + β·KL(p‖u) of each token: Pereyra et al. 2017, §3.1 (arXiv 1701.06548).

    For the uniform prior KL(p‖u) = ln V − H(p), so that it is the paper's nll − β·H(p) and a
    constant. Arguments as of `generalized_entropy`.

    Example:
      >>> p = jnp.array([0.5, 0.25, 0.25])
      >>> confidence_penalty(jnp.log(p), 0, 1.0) + jnp.sum(p * -jnp.log(p)) - jnp.log(3)
      Array(0.6931472, dtype=float32)
    """
    return generalized_entropy(logits, labels, beta, 0.0, where=where, prior=prior)


def _divergence(u: Array, log_p: Float[Array, "... V"], alpha: float) -> Float[Array, "..."]:
    """D_α(u‖p), 0·log 0 being 0 in value and gradient; infinite where the definition is."""
    p = jnp.exp(log_p)
    some_u, some_p = u > 0, p > 0
    log_u = jnp.log(jnp.where(some_u, u, 1))
    safe_log_p = jnp.where(some_p, log_p, 0)
    if alpha == 0:
        inside = jnp.sum(jnp.where(some_u & some_p, p * (safe_log_p - log_u), 0), axis=-1)
        # A term of its own: multiplied by p its gradient would be NaN.
        return inside + jnp.where(jnp.any(some_p & ~some_u, axis=-1), jnp.inf, 0)
    if alpha == 1:
        return jnp.sum(jnp.where(some_u, u * (log_u - log_p), 0), axis=-1)
    mixture = (1 - alpha) * u + alpha * p
    log_m = jnp.log(jnp.where(some_u | some_p, mixture, 1))
    from_u = jnp.sum(jnp.where(some_u, u * (log_u - log_m), 0), axis=-1)
    from_p = jnp.sum(jnp.where(some_p, p * (safe_log_p - log_m), 0), axis=-1)
    return ((1 - alpha) * from_u + alpha * from_p) / (alpha * (1 - alpha))
