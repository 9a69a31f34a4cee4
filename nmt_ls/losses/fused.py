"""Hidden states × output embedding → loss, a chunk of rows at a time: the kernel of `linear.py`.

Never more than one chunk of logits is alive. Gradients of hidden states, embedding and bias are
made in the same pass as the loss: three matrix products a chunk and none in the backward pass (the
design of Liger's fused linear cross-entropy). Smoothing stays out of the chunks: with one prior u
for all rows Σ u·logits = hidden·(Wᵀu) + b·u, one product of a vector for the whole batch, and its
gradient is rank one, where the sums over rows start instead of at zero. A soft-cap is not linear;
with one, smoothing is computed inside the chunks.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nmt_ls.losses.arguments import loss_dtype, varying_like
from nmt_ls.losses.chunked import in_chunks, joined
from nmt_ls.losses.targets import SmoothedTarget, cross_entropy_of_rows


class Setting(NamedTuple):
    """Constants of a compiled kernel."""

    chunk_size: int
    logit_softcap: float | None
    smoothed: bool
    statistics: bool


class Matrix(NamedTuple):
    """The output layer."""

    embedding: Float[Array, "V D"]
    bias: Float[Array, "V"] | None
    prior: Float[Array, "V"] | None
    """Normalised; None is uniform. A constant."""


class Rows(NamedTuple):
    """What each row brings; `[N]`, or `[chunk]` inside the loop."""

    hidden: Float[Array, "N D"]
    """0 where masked."""
    labels: Int[Array, "N"]
    """Each one a class."""
    on_target: Float[Array, "N"]
    share: Float[Array, "N"]
    weights: Float[Array, "N"]
    """Factor of the row's loss in the gradient: 0 where masked, NaN where the label is none."""


class Measured(NamedTuple):
    """What the kernel finds of each row, `[N]`; logits counted from the row's maximum."""

    loss: Float[Array, "N"]
    """Without weights, masks and the target's entropy."""
    log_sum: Float[Array, "N"]
    gold: Float[Array, "N"]
    spread: Float[Array, "N"]
    mean: Float[Array, "N"]
    """Σ p·s, where statistics are wanted; else 0."""
    maximum: Float[Array, "N"]


class Gradients(NamedTuple):
    """Of Σ weights·loss; embedding and bias in at least float32."""

    hidden: Float[Array, "N D"]
    embedding: Float[Array, "V D"]
    bias: Float[Array, "V"] | None


def measure(setting: Setting, z_loss, matrix: Matrix, rows: Rows) -> Measured:
    """The rows' losses alone: one matrix product."""
    matrix, spread = _prepared(setting, matrix, rows)

    def one(_, chunk):
        measured, _ = _chunk(setting, z_loss, matrix, *chunk)
        return None, measured

    _, measured = jax.lax.scan(one, None, in_chunks((rows, spread), setting.chunk_size))
    return joined(measured, len(rows.labels))


def measure_with_gradients(
    setting: Setting, z_loss, matrix: Matrix, rows: Rows
) -> tuple[Measured, Gradients]:
    """The rows' losses and the gradients of their weighted sum: three matrix products."""
    matrix, spread = _prepared(setting, matrix, rows)
    start = _smoothing_gradients(setting, matrix, rows)
    carry = varying_like((start.embedding, start.bias), (matrix, rows))

    def one(carry, chunk):
        measured, d_logits = _chunk(setting, z_loss, matrix, *chunk)
        d_hidden = _product(d_logits, matrix.embedding, 0)
        return _added(carry, d_logits, chunk[0].hidden), (measured, d_hidden)

    chunks = in_chunks((rows, spread), setting.chunk_size)
    (embedding, bias), (measured, hidden) = jax.lax.scan(one, carry, chunks)
    n = len(rows.labels)
    hidden = (joined(hidden, n) + start.hidden).astype(rows.hidden.dtype)
    return joined(measured, n), Gradients(hidden, embedding, bias)


def matrix_gradients(
    setting: Setting, z_loss, matrix: Matrix, rows: Rows
) -> tuple[Float[Array, "V D"], Float[Array, "V"] | None]:
    """Those of embedding and bias alone, for other weights: two matrix products."""
    matrix, spread = _prepared(setting, matrix, rows)
    start = _smoothing_gradients(setting, matrix, rows)
    carry = varying_like((start.embedding, start.bias), (matrix, rows))

    def one(carry, chunk):
        _, d_logits = _chunk(setting, z_loss, matrix, *chunk)
        return _added(carry, d_logits, chunk[0].hidden), None

    return jax.lax.scan(one, carry, in_chunks((rows, spread), setting.chunk_size))[0]


def _chunk(setting: Setting, z_loss, matrix: Matrix, rows: Rows, spread):
    """What is found of a chunk's rows, and the weighted gradient of their logits `[chunk, V]`."""
    logits = _product(rows.hidden, matrix.embedding, 1)
    if matrix.bias is not None:
        logits = logits + matrix.bias
    slope = None
    if setting.logit_softcap is not None:
        squashed = jnp.tanh(logits / setting.logit_softcap)
        logits, slope = setting.logit_softcap * squashed, 1 - squashed**2
    maximum = jax.lax.stop_gradient(jnp.max(logits, axis=-1))
    shifted = logits - maximum[:, None]
    exponentials = jnp.exp(shifted)
    total = jnp.sum(exponentials, axis=-1)
    log_sum = jnp.log(total)
    gold = jnp.take_along_axis(shifted, rows.labels[:, None], axis=-1)[:, 0]
    inside = setting.smoothed and slope is not None
    if inside:
        prior = _prior(matrix)
        spread = jnp.sum(jnp.where(prior > 0, prior * shifted, 0), axis=-1)
    elif setting.smoothed:
        spread = spread - maximum
    mean = jnp.zeros_like(total)
    if setting.statistics:
        weighted = jnp.where(exponentials > 0, exponentials * shifted, 0)
        mean = jax.lax.stop_gradient(jnp.sum(weighted, axis=-1) / total)
    log_z = log_sum + maximum
    target = SmoothedTarget(rows.on_target, rows.share, None)
    loss = cross_entropy_of_rows(target, log_sum, gold, spread, log_z, z_loss)

    # ∂/∂logits = weights·(p·(1 + 2 z log_z) − on_target·[y] − share·u)
    on_all = rows.weights / total
    if z_loss is not None:
        on_all = on_all * (1 + 2 * z_loss * log_z)
    on_gold = rows.weights * rows.on_target
    hot = jnp.arange(logits.shape[-1], dtype=jnp.int32) == rows.labels[:, None]
    # Compared, not scattered: it becomes a part of the loop over the exponentials.
    d_logits = exponentials * on_all[:, None] - jnp.where(hot, on_gold[:, None], 0)
    if inside:
        d_logits = d_logits - (rows.weights * rows.share)[:, None] * prior
    if slope is not None:
        d_logits = d_logits * slope
    measured = Measured(loss, log_sum, gold, spread, mean, maximum)
    return measured, d_logits


def _prior(matrix: Matrix) -> Float[Array, "V"]:
    if matrix.prior is not None:
        return matrix.prior
    vocab_size = matrix.embedding.shape[0]
    return jnp.full(vocab_size, 1 / vocab_size, loss_dtype(matrix.embedding.dtype))


def _weighted_by_prior(matrix: Matrix):
    """(Wᵀu, b·u); classes without mass may hold anything."""
    dtype = loss_dtype(matrix.embedding.dtype)
    embedding, prior = matrix.embedding.astype(dtype), matrix.prior
    bias = jnp.zeros((), dtype) if matrix.bias is None else matrix.bias
    if prior is None:
        return jnp.mean(embedding, axis=0), jnp.mean(bias)
    some = prior > 0
    spread = jnp.sum(jnp.where(some, prior * bias, 0))
    return prior.astype(dtype) @ jnp.where(some[:, None], embedding, 0), spread


def _prepared(setting: Setting, matrix: Matrix, rows: Rows) -> tuple[Matrix, Float[Array, "N"]]:
    """The matrix in the rows' type, and Σ u·logits of every row without the logits."""
    matrix = matrix._replace(embedding=matrix.embedding.astype(rows.hidden.dtype))
    if not setting.smoothed or setting.logit_softcap is not None:
        return matrix, jnp.zeros_like(rows.weights)
    embedding, bias = _weighted_by_prior(matrix)
    return matrix, rows.hidden.astype(embedding.dtype) @ embedding + bias


def _smoothing_gradients(setting: Setting, matrix: Matrix, rows: Rows) -> Gradients:
    """Of Σ weights·(−share·Σ u·logits), which is rank one: where the sums over chunks start."""
    dtype = rows.weights.dtype
    if not setting.smoothed or setting.logit_softcap is not None:
        bias = None if matrix.bias is None else jnp.zeros(matrix.bias.shape, dtype)
        return Gradients(jnp.zeros((), dtype), jnp.zeros(matrix.embedding.shape, dtype), bias)
    mass = rows.weights * rows.share
    prior = _prior(matrix).astype(dtype)
    embedding, _ = _weighted_by_prior(matrix)
    return Gradients(
        -mass[:, None] * embedding,
        -prior[:, None] * (mass @ rows.hidden.astype(dtype)),
        None if matrix.bias is None else -prior * jnp.sum(mass),
    )


def _added(carry, d_logits: Float[Array, "C V"], hidden: Float[Array, "C D"]):
    """(embedding, bias) gradients with a chunk's share added."""
    embedding, bias = carry
    # In the hidden states' type, or a bfloat16 product would run in float32; summed in float32.
    embedding = embedding + jax.lax.dot_general(
        d_logits.astype(hidden.dtype),
        hidden,
        (((0,), (0,)), ((), ())),
        preferred_element_type=embedding.dtype,
    )
    return embedding, None if bias is None else bias + jnp.sum(d_logits, axis=0)


def _product(left: Array, embedding: Float[Array, "V D"], axis: int) -> Array:
    """left · embedding over the embedding's `axis`, summed in at least float32."""
    return jax.lax.dot_general(
        left.astype(embedding.dtype),
        embedding,
        (((1,), (axis,)), ((), ())),
        preferred_element_type=loss_dtype(embedding.dtype),
    )
