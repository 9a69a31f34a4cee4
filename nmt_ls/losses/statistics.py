"""Hard-label statistics of tokens, and masked sums and means that stay exact across devices."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float


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


def loss_dtype(dtype) -> jnp.dtype:
    """The type that a loss is computed in: at least float32, float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)


def whole_labels(labels: ArrayLike) -> Array:
    """Labels of a type that can be compared with any V: 300 as int8 would be 44."""
    labels = jnp.asarray(labels)
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels


def row_mask(where: ArrayLike | None, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """`where` (`[...]` or `[..., 1]`, any type) as booleans of the labels' shape."""
    if where is None:
        return jnp.ones(shape, bool)
    mask = jnp.asarray(where).astype(bool)
    if mask.ndim == len(shape) + 1 and mask.shape[-1] == 1:
        mask = mask[..., 0]
    return jnp.broadcast_to(mask, shape)


def statistics_of_rows(shifted, log_sum, gold, log_z, mask, valid) -> TokenStatistics:
    """Statistics from logits shifted by their row maximum and the log of their exponential sum."""
    shifted, log_sum, gold, log_z = jax.lax.stop_gradient((shifted, log_sum, gold, log_z))
    log_p = shifted - log_sum[..., None]
    p = jnp.exp(log_p)
    fields = TokenStatistics(
        nll=jnp.where(valid, log_sum - gold, jnp.nan),
        entropy=-jnp.sum(jnp.where(p > 0, p * log_p, 0), axis=-1),
        log_z=log_z,
        confidence=jnp.exp(-log_sum),
        correct=jnp.where(valid, gold == 0, False),
    )
    return TokenStatistics(*(jnp.where(mask, f, 0).astype(jnp.float32) for f in fields))


def token_statistics(
    logits: ArrayLike, labels: ArrayLike, where: ArrayLike | None = None
) -> TokenStatistics:
    """Hard-label statistics (natural log) of `logits [..., V]` against `labels [...]`, float32."""
    logits = jnp.asarray(logits)
    labels = whole_labels(labels)
    logits = logits.astype(loss_dtype(logits.dtype))
    mask = row_mask(where, labels.shape)
    logits = jnp.where(mask[..., None], logits, 0)
    valid = (labels >= 0) & (labels < logits.shape[-1])
    safe_labels = jnp.where(mask & valid, labels, 0).astype(jnp.int32)
    shift = jnp.max(logits, axis=-1, keepdims=True)
    shifted = logits - shift
    log_sum = jnp.log(jnp.sum(jnp.exp(shifted), axis=-1))
    gold = jnp.take_along_axis(shifted, safe_labels[..., None], axis=-1)[..., 0]
    return statistics_of_rows(shifted, log_sum, gold, log_sum + shift[..., 0], mask, valid)


def masked_sum(
    values: ArrayLike, where: ArrayLike | None
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """(Σ of the selected values, how many): what training differentiates, before any psum."""
    values = jnp.asarray(values)
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
