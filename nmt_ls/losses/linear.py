"""The loss from hidden states and the output embedding, a chunk of rows at a time.

Never more than one chunk of logits is alive, and the gradients of hidden states, embedding and
bias are made in the same pass as the loss: three matrix products a chunk and none in the backward
pass, which only multiplies them by the incoming scalar (the design of Liger's fused linear
cross-entropy, for any smoothing convention).
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from nmt_ls.losses.cross_entropy import label_smoothed_cross_entropy_with_statistics
from nmt_ls.losses.statistics import TokenStatistics, loss_dtype, row_mask


def linear_label_smoothed_cross_entropy_sum_with_statistics(
    hidden: Float[Array, "*B D"],
    embedding: Float[Array, "V D"],
    labels: ArrayLike,
    label_smoothing: ArrayLike = 0.1,
    *,
    bias: Float[Array, "V"] | None = None,
    where: ArrayLike | None = None,
    prior: ArrayLike | None = None,
    exclude_target: bool = False,
    subtract_entropy: bool = False,
    z_loss: float = 0.0,
    chunk_size: int | None = None,
) -> tuple[Float[Array, ""], TokenStatistics]:
    """(Σ loss over the rows that `where` selects, statistics of each row).

    The loss is that of `label_smoothed_cross_entropy` on `hidden @ embedding.T + bias`; gradients
    flow to hidden, embedding and bias. The statistics carry none, nor do ε and the prior.

    Args:
      hidden: `[..., D]`; products run in its type, sums in float32.
      embedding: `[V, D]`, the (tied) output matrix.
      labels: `[...]`, integers.
      label_smoothing: ε, a scalar (may be traced) or `[...]`.
      bias: `[V]`.
      where: `[...]`, rows that count. Others may hold anything.
      prior: `[V]`, who receives ε.
      chunk_size: rows of logits alive at a time; None chooses by the backend.
    """
    labels = jnp.asarray(labels)
    shape = labels.shape
    mask = row_mask(where, shape).reshape(-1)
    # A masked row may hold NaN, and 0·NaN would reach the embedding's gradient.
    rows = jnp.where(mask[:, None], hidden.reshape(-1, hidden.shape[-1]), 0)
    epsilon = jnp.asarray(label_smoothing, loss_dtype(hidden.dtype))
    if epsilon.ndim:
        epsilon = jnp.broadcast_to(epsilon, shape).reshape(-1)
    else:
        epsilon = jnp.broadcast_to(epsilon, mask.shape)
    size = min(chunk_size or _default_chunk(embedding.shape[0]), max(len(rows), 1))
    options = {
        "prior": prior,
        "exclude_target": exclude_target,
        "subtract_entropy": subtract_entropy,
        "z_loss": z_loss,
    }
    chunked = [_in_chunks(x, size) for x in (rows, labels.reshape(-1), epsilon, mask)]
    total, statistics = _summed(partial(_chunk_loss, **options), embedding, bias, *chunked)
    flat = (x.reshape(-1)[: len(mask)].reshape(shape) for x in statistics)
    return total, TokenStatistics(*flat)


def _default_chunk(vocab_size: int) -> int:
    # On CPU a chunk of logits should stay in the cache; elsewhere products want to be large.
    elements = 2**21 if jax.default_backend() == "cpu" else 2**26
    return max(64, elements // vocab_size)


def _in_chunks(x: Array, size: int) -> Array:
    padding = -len(x) % size
    return jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1)).reshape(-1, size, *x.shape[1:])


def _chunk_loss(weights, hidden, labels, epsilon, mask, **options: Any):
    embedding, bias = weights
    logits = jax.lax.dot_general(
        hidden,
        embedding.astype(hidden.dtype),
        (((1,), (1,)), ((), ())),
        preferred_element_type=loss_dtype(hidden.dtype),
    )
    if bias is not None:
        logits = logits + bias
    losses, statistics = label_smoothed_cross_entropy_with_statistics(
        logits, labels, epsilon, where=mask, **options
    )
    return jnp.sum(losses), statistics


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _summed(chunk_loss, embedding, bias, hidden, labels, epsilon, mask):
    def add(total, chunk):
        loss, statistics = chunk_loss((embedding, bias), *chunk)
        return total + loss, statistics

    zero = jnp.zeros((), loss_dtype(hidden.dtype))
    return jax.lax.scan(add, zero, (hidden, labels, epsilon, mask))


def _summed_forward(chunk_loss, embedding, bias, hidden, labels, epsilon, mask):
    differentiate = jax.value_and_grad(chunk_loss, argnums=(0, 1), has_aux=True)

    def add(carry, chunk):
        total, gradient = carry
        (loss, statistics), (more, d_hidden) = differentiate((embedding, bias), *chunk)
        return (total + loss, jax.tree.map(jnp.add, gradient, more)), (statistics, d_hidden)

    zero = jnp.zeros((), loss_dtype(hidden.dtype))
    zeros = jax.tree.map(jnp.zeros_like, (embedding, bias))
    (total, gradient), (statistics, d_hidden) = jax.lax.scan(
        add, (zero, zeros), (hidden, labels, epsilon, mask)
    )
    return (total, statistics), (*gradient, d_hidden)


def _summed_backward(chunk_loss, residuals, cotangents):
    del chunk_loss
    scale, _ = cotangents  # statistics carry no gradient
    d_embedding, d_bias, d_hidden = jax.tree.map(lambda g: (scale * g).astype(g.dtype), residuals)
    return d_embedding, d_bias, d_hidden, None, None, None


_summed.defvjp(_summed_forward, _summed_backward)
