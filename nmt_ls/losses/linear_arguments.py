"""The arguments of the fused losses, checked, and flat: N rows."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from nmt_ls.losses.arguments import (
    broadcast,
    constant_or_none,
    integer_labels,
    is_zero,
    linear_arguments,
    loss_dtype,
    normalised_prior,
    row_mask,
    smoothing_of_rows,
)
from nmt_ls.losses.chunked import default_chunk_size, even_chunk_size
from nmt_ls.losses.fused import Matrix, Rows, Setting
from nmt_ls.losses.targets import smoothed_target


class Problem(NamedTuple):
    """Arguments, checked and flat: N rows."""

    setting: Setting
    z_loss: Array | None
    matrix: Matrix
    rows: Rows
    entropy: Float[Array, "N"] | None
    """Of the target, where the loss subtracts it."""
    mask: Array
    valid: Array
    factor: Float[Array, "N"]
    """1; NaN where the label of a row that counts is no class, for its loss and its gradients."""
    shape: tuple[int, ...]
    """Of the labels."""


def problem_of(
    statistics, hidden, embedding, labels, label_smoothing, *, bias, where, prior, weights,
    exclude_target, subtract_entropy, z_loss, logit_softcap, chunk_size,
) -> Problem:  # fmt: skip
    """Arguments as of `linear_label_smoothed_cross_entropy_sum`, checked and made flat.

    Raises:
      ValueError, TypeError: arguments of a wrong shape, type or value, named.
    """
    hidden, embedding, bias = linear_arguments(hidden, embedding, bias, logit_softcap, chunk_size)
    (vocab_size, width), shape = embedding.shape, hidden.shape[:-1]
    dtype = loss_dtype(hidden.dtype)
    labels = integer_labels(labels, shape, "hidden")
    mask = row_mask(where, shape)
    epsilon = smoothing_of_rows(label_smoothing, shape, dtype)
    if prior is not None:
        if np.shape(prior) != (vocab_size,):
            raise ValueError(
                f"prior has shape {np.shape(prior)}; here it must be ({vocab_size},), one for all "
                "rows (label_smoothed_cross_entropy takes one per row)"
            )
        prior = normalised_prior(prior, dtype, vocab_size)
    factors = broadcast("weights", jnp.asarray(1 if weights is None else weights, dtype), shape)

    labels, mask, epsilon, factors = (x.reshape(-1) for x in (labels, mask, epsilon, factors))
    # A masked row may hold NaN, and 0·NaN would reach the embedding's gradient.
    flat = jnp.where(mask[:, None], hidden.reshape(-1, width), 0)
    epsilon, factors = jnp.where(mask, epsilon, 0), jnp.where(mask, factors, 0)
    valid = (labels >= 0) & (labels < vocab_size)
    factor = jnp.where(mask & ~valid, jnp.nan, 1).astype(dtype)
    safe_labels = jnp.where(mask & valid, labels, 0).astype(jnp.int32)
    at_label = 1 / vocab_size if prior is None else prior[safe_labels]
    target = smoothed_target(
        epsilon, prior, jnp.broadcast_to(jnp.asarray(at_label, dtype), epsilon.shape), vocab_size,
        exclude_target=exclude_target, subtract_entropy=subtract_entropy,
    )  # fmt: skip
    setting = Setting(
        chunk_size=even_chunk_size(len(labels), chunk_size or default_chunk_size(vocab_size)),
        logit_softcap=logit_softcap,
        smoothed=not is_zero(label_smoothing),
        statistics=statistics,
    )
    matrix = Matrix(embedding, bias, prior)
    rows = Rows(flat, safe_labels, target.on_target, target.share, factors)
    z_loss = constant_or_none(z_loss, dtype)
    return Problem(setting, z_loss, matrix, rows, target.entropy, mask, valid, factor, shape)
