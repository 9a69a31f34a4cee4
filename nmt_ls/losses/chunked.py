"""Any loss of logits, from hidden states and the output embedding, without all logits at once."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from nmt_ls.losses.arguments import linear_arguments, loss_dtype, row_mask


def linear_loss(
    loss: Callable[..., Any],
    hidden: Float[Array, "*B D"],
    embedding: Float[Array, "V D"],
    *rows: ArrayLike,
    bias: Float[Array, "V"] | None = None,
    where: ArrayLike | None = None,
    logit_softcap: float | None = None,
    chunk_size: int | None = None,
) -> Any:
    """`loss(logits, *rows, where=…)` of logits = hidden @ embedding.T + bias, chunk by chunk.

    For losses without a kernel of their own. Logits are made again in the backward pass (four
    matrix products, where `linear_label_smoothed_cross_entropy_sum` needs three), so that never
    more than a chunk of them, and of what the loss makes of them, is alive.

    Args:
      loss: takes logits `[chunk, V]` (at least float32), the rows `[chunk, …]` and
        `where=[chunk]`; returns arrays `[chunk, …]`, in any structure.
      hidden: `[..., D]`; products run in its type.
      embedding: `[V, D]`.
      rows: arrays `[..., …]`, labels first as a rule, that `loss` is given a chunk of.
      bias: `[V]`.
      where: `[...]` or `[..., 1]`, rows that count; hidden states of the others are taken as 0.
      logit_softcap: c: logits are c·tanh(logits/c).
      chunk_size: rows of logits alive at a time; None chooses by V and the backend.

    Returns:
      What `loss` returns, with `[...]` in place of `[chunk]`.

    Example:
      >>> from functools import partial
      >>> from nmt_ls.losses import confidence_penalty
      >>> hidden, embedding = jnp.ones((2, 3, 4)), jnp.ones((5, 4))
      >>> labels = jnp.zeros((2, 3), int)
      >>> linear_loss(partial(confidence_penalty, beta=0.1), hidden, embedding, labels).shape
      (2, 3)

    Raises:
      ValueError, TypeError: arguments of a wrong shape, type or value, named.
    """
    hidden, embedding, bias = linear_arguments(hidden, embedding, bias, logit_softcap, chunk_size)
    shape, n = hidden.shape[:-1], hidden[..., 0].size
    mask = row_mask(where, shape)
    # A masked row may hold NaN, and 0·NaN would reach the embedding's gradient.
    safe = jnp.where(mask[..., None], hidden, 0)
    size = even_chunk_size(n, chunk_size or default_chunk_size(embedding.shape[0]))

    @jax.checkpoint
    def one(chunk):
        part, mask, *others = chunk
        logits = jax.lax.dot_general(
            part,
            embedding.astype(part.dtype),
            (((1,), (1,)), ((), ())),
            preferred_element_type=loss_dtype(part.dtype),
        )
        if bias is not None:
            logits = logits + bias
        if logit_softcap is not None:
            logits = logit_softcap * jnp.tanh(logits / logit_softcap)
        return loss(logits, *others, where=mask)

    def flat(x: Array) -> Array:
        return x.reshape(n, *x.shape[len(shape) :])

    chunks = in_chunks([flat(jnp.asarray(x)) for x in (safe, mask, *rows)], size)
    found = jax.lax.map(one, chunks)
    return jax.tree.map(lambda x: x.reshape(*shape, *x.shape[1:]), joined(found, n))


def default_chunk_size(vocab_size: int) -> int:
    """Rows of logits to hold at a time.

    Few large products beat many small ones, which read and write the embedding's gradient more
    often; memory grows with the chunk. Measured: docs/losses.md.
    """
    elements = 2**23 if jax.default_backend() == "cpu" else 2**26
    return max(64, elements // vocab_size)


def even_chunk_size(rows: int, most: int) -> int:
    """Rows of each of the fewest equal chunks: what fills up the last one costs as much as rows.

    On an accelerator a multiple of 8, which its products fill each chunk up to: there a chunk may
    have up to 7 rows more than `most`.
    """
    chunks = -(-max(rows, 1) // most)
    size = -(-max(rows, 1) // chunks)
    return size if jax.default_backend() == "cpu" else -(-size // 8) * 8


def in_chunks(tree: Any, size: int) -> Any:
    """Arrays `[N, …]` as `[chunks, size, …]`, padded with zeros."""

    def one(x: Array) -> Array:
        padding = -len(x) % size
        x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
        return x.reshape(-1, size, *x.shape[1:])

    return jax.tree.map(one, tree)


def joined(tree: Any, n: int) -> Any:
    """The opposite of `in_chunks`."""
    return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[:n], tree)
