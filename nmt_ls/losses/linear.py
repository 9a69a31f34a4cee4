"""The loss from hidden states and the output embedding, never holding all logits.

Two forms over one kernel (`fused.py`): the sum, which training differentiates, with the gradients
made in the forward pass; and one value per token, exact under whatever is done with it later.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from nmt_ls.losses import fused
from nmt_ls.losses.arguments import summed_like
from nmt_ls.losses.fused import Matrix, Measured, Rows
from nmt_ls.losses.linear_arguments import Problem, problem_of
from nmt_ls.losses.statistics import TokenStatistics, statistics_of_rows
from nmt_ls.losses.targets import times


def linear_label_smoothed_cross_entropy(
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
    z_loss: ArrayLike = 0.0,
    logit_softcap: float | None = None,
    chunk_size: int | None = None,
) -> Float[Array, "*B"]:
    """`label_smoothed_cross_entropy` of `hidden @ embedding.T + bias`, one loss per token.

    Logits `[..., V]` are never held: a chunk of rows at a time has them. Gradients with respect to
    hidden, embedding, bias and ε are exact under any weighting of the tokens. If all tokens that
    count weigh the same (a sum, a mean) they were made along with the loss and cost nothing more;
    otherwise two matrix products make those of embedding and bias again. `…_sum` with `weights`
    avoids that where the weights are known beforehand.

    Args:
      hidden: `[..., D]`; products run in its type and are summed in at least float32.
      embedding: `[V, D]`, the (tied) output matrix.
      labels: `[...]`, any integer type. Outside [0, V) the loss is NaN and so are the gradients,
        unless masked.
      label_smoothing: ε in [0, 1]: a float, a traced scalar, or an array that broadcasts to labels.
      bias: `[V]`.
      where: `[...]` or `[..., 1]`, selects rows. The others have loss 0 and gradients exactly 0,
        whatever they hold.
      prior: `[V]`, weights of the classes that receive ε; None is uniform. A constant.
      exclude_target: True spreads ε over the other classes only.
      subtract_entropy: True subtracts the target distribution's entropy.
      z_loss: adds `z_loss * logsumexp(logits)**2`. A constant.
      logit_softcap: c: logits are c·tanh(logits/c), as in Gemma 2.
      chunk_size: rows of logits alive at a time; None chooses by V and the backend.

    Returns:
      `[...]` in nats, at least float32.

    Raises:
      ValueError, TypeError: arguments of a wrong shape, type or value, named.
    """
    loss, _ = _per_token(
        False, hidden, embedding, labels, label_smoothing, bias=bias, where=where, prior=prior,
        exclude_target=exclude_target, subtract_entropy=subtract_entropy, z_loss=z_loss,
        logit_softcap=logit_softcap, chunk_size=chunk_size,
    )  # fmt: skip
    return loss


def linear_label_smoothed_cross_entropy_with_statistics(
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
    z_loss: ArrayLike = 0.0,
    logit_softcap: float | None = None,
    chunk_size: int | None = None,
) -> tuple[Float[Array, "*B"], TokenStatistics]:
    """As `linear_label_smoothed_cross_entropy`, with the hard-label statistics of each token."""
    return _per_token(
        True, hidden, embedding, labels, label_smoothing, bias=bias, where=where, prior=prior,
        exclude_target=exclude_target, subtract_entropy=subtract_entropy, z_loss=z_loss,
        logit_softcap=logit_softcap, chunk_size=chunk_size,
    )  # fmt: skip


def linear_label_smoothed_cross_entropy_sum(
    hidden: Float[Array, "*B D"],
    embedding: Float[Array, "V D"],
    labels: ArrayLike,
    label_smoothing: ArrayLike = 0.1,
    *,
    bias: Float[Array, "V"] | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    prior: ArrayLike | None = None,
    exclude_target: bool = False,
    subtract_entropy: bool = False,
    z_loss: ArrayLike = 0.0,
    logit_softcap: float | None = None,
    chunk_size: int | None = None,
) -> Float[Array, ""]:
    """Σ weights·loss over the rows that `where` selects: the form for training.

    The gradients are made in the forward pass; the backward pass multiplies them by a number.
    Arguments as of `linear_label_smoothed_cross_entropy`, and

    Args:
      weights: factors of the rows' losses, of any shape that broadcasts to labels; None is 1.
        Differentiable.
    """
    total, _ = _sum(
        False, hidden, embedding, labels, label_smoothing, bias=bias, where=where, prior=prior,
        exclude_target=exclude_target, subtract_entropy=subtract_entropy, z_loss=z_loss,
        logit_softcap=logit_softcap, chunk_size=chunk_size, weights=weights,
    )  # fmt: skip
    return total


def linear_label_smoothed_cross_entropy_sum_with_statistics(
    hidden: Float[Array, "*B D"],
    embedding: Float[Array, "V D"],
    labels: ArrayLike,
    label_smoothing: ArrayLike = 0.1,
    *,
    bias: Float[Array, "V"] | None = None,
    where: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    prior: ArrayLike | None = None,
    exclude_target: bool = False,
    subtract_entropy: bool = False,
    z_loss: ArrayLike = 0.0,
    logit_softcap: float | None = None,
    chunk_size: int | None = None,
) -> tuple[Float[Array, ""], TokenStatistics]:
    """As `linear_label_smoothed_cross_entropy_sum`, with the statistics of each token, unweighted.

    The statistics are of hard labels, without smoothing, and carry no gradient.
    """
    return _sum(
        True, hidden, embedding, labels, label_smoothing, bias=bias, where=where, prior=prior,
        exclude_target=exclude_target, subtract_entropy=subtract_entropy, z_loss=z_loss,
        logit_softcap=logit_softcap, chunk_size=chunk_size, weights=weights,
    )  # fmt: skip


# --- statistics ---------------------------------------------------------------------------------


def _statistics(problem: Problem, measured: Measured) -> TokenStatistics:
    m = jax.lax.stop_gradient(measured)
    statistics = statistics_of_rows(
        m.log_sum, m.gold, m.mean, m.log_sum + m.maximum, problem.mask, problem.valid
    )
    return TokenStatistics(*(x.reshape(problem.shape) for x in statistics))


# --- the sum -------------------------------------------------------------------------------------


def _sum(statistics: bool, *arguments, **options):
    problem = problem_of(statistics, *arguments, **options)
    rows = problem.rows._replace(weights=problem.rows.weights * problem.factor)
    total, measured = _fused_sum(problem.setting, problem.z_loss, problem.matrix, rows)
    if problem.entropy is not None:
        total = total - jnp.sum(problem.rows.weights * problem.entropy)
    return total, _statistics(problem, measured)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused_sum(setting, z_loss, matrix: Matrix, rows: Rows):
    measured = fused.measure(setting, z_loss, matrix, rows)
    return jnp.sum(times(rows.weights, measured.loss)), measured


def _fused_sum_forward(setting, z_loss, matrix: Matrix, rows: Rows):
    measured, gradients = fused.measure_with_gradients(setting, z_loss, matrix, rows)
    total = jnp.sum(times(rows.weights, measured.loss))
    return (total, measured), (gradients, matrix, rows, measured)


def _fused_sum_backward(setting, residuals, cotangents):
    gradients, matrix, rows, measured = residuals
    scale, _ = cotangents  # what is measured carries no gradient
    d_rows = _of_rows(
        scale * gradients.hidden, scale * rows.weights, scale * measured.loss, rows, measured
    )
    d_embedding, d_bias = jax.tree.map(lambda g: scale * g, (gradients.embedding, gradients.bias))
    return None, _of_matrix(d_embedding, d_bias, matrix), d_rows


_fused_sum.defvjp(_fused_sum_forward, _fused_sum_backward)


def _of_rows(hidden, factors, weights, rows: Rows, measured: Measured) -> Rows:
    """Cotangents of the rows, those of the target's masses by `factors`, one a row.

    Those are of logits counted from their maximum: the masses' sum is 1, so that it drops out.
    """
    return Rows(
        hidden=summed_like(hidden, rows.hidden).astype(rows.hidden.dtype),
        labels=None,  # type: ignore[arg-type]  # integers have none
        on_target=summed_like(-times(factors, measured.gold), rows.on_target),
        share=summed_like(-times(factors, measured.spread), rows.share),
        weights=None if weights is None else summed_like(weights, rows.weights),  # type: ignore[arg-type]
    )


def _of_matrix(embedding, bias, matrix: Matrix) -> Matrix:
    def one(cotangent, primal):
        if primal is None:
            return None
        return summed_like(cotangent, primal).astype(primal.dtype)

    return Matrix(one(embedding, matrix.embedding), one(bias, matrix.bias), None)


# --- one value per token -------------------------------------------------------------------------


def _per_token(statistics: bool, *arguments, **options):
    problem = problem_of(statistics, *arguments, weights=None, **options)
    rows = problem.rows._replace(weights=problem.rows.weights * problem.factor)
    loss, measured = _fused_rows(problem.setting, problem.z_loss, problem.matrix, rows)
    if problem.entropy is not None:
        loss = loss - problem.entropy
    loss = jnp.where(problem.mask, loss * problem.factor, 0).reshape(problem.shape)
    return loss, _statistics(problem, measured)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _fused_rows(setting, z_loss, matrix: Matrix, rows: Rows):
    measured = fused.measure(setting, z_loss, matrix, rows)
    return measured.loss, measured


def _fused_rows_forward(setting, z_loss, matrix: Matrix, rows: Rows):
    measured, gradients = fused.measure_with_gradients(setting, z_loss, matrix, rows)
    return (measured.loss, measured), (z_loss, gradients, matrix, rows, measured)


def _fused_rows_backward(setting, residuals, cotangents):
    return _first_order(setting, residuals, cotangents[0])


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def _first_order(setting, residuals, cotangent: Float[Array, "N"]):
    z_loss, gradients, matrix, rows, measured = residuals
    factors = times(rows.weights, cotangent)
    live = rows.weights != 0
    # Made along with the loss for weights of 1, the gradients are those of any one other weight.
    scale = jnp.max(cotangent, where=live, initial=-jnp.inf)
    scale = jnp.where(jnp.any(live), scale, 0)
    embedding, bias = jax.lax.cond(
        jnp.all((cotangent == scale) | ~live),
        lambda: jax.tree.map(lambda g: scale * g, (gradients.embedding, gradients.bias)),
        lambda: fused.matrix_gradients(setting, z_loss, matrix, rows._replace(weights=factors)),
    )
    # Row by row, so that any weights will do; masked rows are 0 already.
    d_hidden = cotangent[:, None] * gradients.hidden
    d_rows = _of_rows(d_hidden, factors, None, rows, measured)
    return None, _of_matrix(embedding, bias, matrix), d_rows


@_first_order.defjvp
def _(setting, primals, tangents):
    # Through the branch of equal weights a second derivative would silently be wrong.
    raise NotImplementedError(
        "linear_label_smoothed_cross_entropy has no second derivatives; "
        "linear_label_smoothed_cross_entropy_sum and label_smoothed_cross_entropy have"
    )


_fused_rows.defvjp(_fused_rows_forward, _fused_rows_backward)
