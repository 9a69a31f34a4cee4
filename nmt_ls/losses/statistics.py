"""Hard-label statistics of tokens, and masked sums and means that stay exact across devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from nmt_ls.losses.arguments import float_array, integer_labels, loss_dtype, row_mask


class TokenStatistics(NamedTuple):
    """What the model says of each token, without any smoothing; 0 where `where` is False."""

    nll: Float[Array, "..."]
    """−log p(label), nats."""
    entropy: Float[Array, "..."]
    """Entropy of the predicted distribution, nats."""
    log_z: Float[Array, "..."]
    """logsumexp(logits)."""
    confidence: Float[Array, "..."]
    """The largest probability."""
    correct: Float[Array, "..."]
    """1 where the label's logit equals the row's maximum, else 0."""


def statistics_of_rows(log_sum, gold, mean, log_z, mask, valid) -> TokenStatistics:
    """Statistics from sums over the classes, logits counted from their row's maximum.

    Args:
      log_sum: log Σ exp s.
      gold: s at the label.
      mean: Σ p·s.
      log_z: logsumexp of the logits themselves.
      mask: rows that count.
      valid: whether the label is a class.
    """
    log_sum, gold, mean, log_z = jax.lax.stop_gradient((log_sum, gold, mean, log_z))
    fields = TokenStatistics(
        nll=jnp.where(valid, log_sum - gold, jnp.nan),
        entropy=log_sum - mean,
        log_z=log_z,
        confidence=jnp.exp(-log_sum),
        # Comparing with the maximum: an argmax costs ten times a logsumexp on a CPU.
        correct=jnp.where(valid, gold == 0, False),
    )
    return TokenStatistics(*(jnp.where(mask, f, 0).astype(jnp.float32) for f in fields))


def token_statistics(
    logits: ArrayLike, labels: ArrayLike, where: ArrayLike | None = None
) -> TokenStatistics:
    """Hard-label statistics (natural log) of `logits [..., V]` against `labels [...]`, float32.

    `nll` and `correct` are NaN and 0 for a label outside [0, V); all are 0 where `where` is False.
    """
    logits = float_array("logits", logits)
    labels = integer_labels(labels, logits.shape[:-1], "logits")
    mask = row_mask(where, labels.shape)
    rows = jnp.where(mask[..., None], logits.astype(loss_dtype(logits.dtype)), 0)
    valid = (labels >= 0) & (labels < rows.shape[-1])
    safe_labels = jnp.where(mask & valid, labels, 0).astype(jnp.int32)
    maximum = jnp.max(rows, axis=-1)
    shifted = rows - maximum[..., None]
    exponentials = jnp.exp(shifted)
    total = jnp.sum(exponentials, axis=-1)
    # 0·−inf is 0 here: p·log p at p = 0.
    weighted = jnp.sum(jnp.where(exponentials > 0, exponentials * shifted, 0), axis=-1)
    gold = jnp.take_along_axis(shifted, safe_labels[..., None], axis=-1)[..., 0]
    log_sum = jnp.log(total)
    return statistics_of_rows(log_sum, gold, weighted / total, log_sum + maximum, mask, valid)


def masked_sum(
    values: ArrayLike, where: ArrayLike | None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(Σ of the selected values, how many): what training differentiates, before any psum."""
    values = jnp.asarray(values)
    values = values.astype(loss_dtype(values.dtype))  # bfloat16 cannot count past 256
    mask = row_mask(where, values.shape)
    return jnp.sum(jnp.where(mask, values, 0)), jnp.sum(mask.astype(values.dtype))


def masked_mean(
    values: ArrayLike, where: ArrayLike | None, *, axis_name: str | None = None
) -> Float[Array, ""]:
    """Mean of the selected values over all devices of `axis_name`; 0 when nothing is selected.

    For metrics. Not inside what is differentiated: under pmap a psum's gradient is off by the
    number of devices.
    """
    total, count = masked_sum(values, where)
    if axis_name is not None:
        total, count = jax.lax.psum((total, count), axis_name)
    return jnp.where(count > 0, total / jnp.where(count > 0, count, 1), 0)
