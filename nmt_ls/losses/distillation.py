"""Word-level knowledge distillation: a student learns a teacher's whole distribution of each token.

Müller et al. 2019 (arXiv 1906.02629, §4) find that a teacher trained with smoothing teaches worse:
what it says of wrong tokens has become alike.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from nmt_ls.losses.arguments import float_array, integer_labels, loss_dtype, row_mask
from nmt_ls.losses.targets import times


def distillation(
    logits: ArrayLike,
    labels: ArrayLike,
    teacher_logits: ArrayLike,
    beta: ArrayLike,
    *,
    temperature: ArrayLike = 1.0,
    where: ArrayLike | None = None,
) -> Float[Array, "..."]:
    """(1−β)·nll + β·T²·KL(p_teacher‖p) of each token, both distributions at temperature T; nats.

    Hinton et al. 2015 (arXiv 1503.02531, §2), whose T² keeps the gradient's size; for T = 1 the
    word-level distillation of Kim and Rush 2016 (arXiv 1606.07947, §3.1), less the teacher's
    entropy. No gradient reaches the teacher. At least float32.

    Args:
      logits: `[..., V]` of the student.
      labels: `[...]`; outside [0, V) the loss is NaN, unless masked.
      teacher_logits: `[..., V]`.
      beta: β in [0, 1], a number (may be traced) or `[...]`; 0 is plain cross-entropy.
      temperature: T > 0.
      where: `[...]` or `[..., 1]`, rows that count; the others have loss and gradient 0.

    Example:
      >>> student, teacher = jnp.log(jnp.array([[0.5, 0.5], [0.75, 0.25]]))
      >>> round(float(distillation(student, 0, teacher, 1.0)), 5)  # 0.75 ln 1.5 + 0.25 ln 0.5
      0.13081
    """
    logits = float_array("logits", logits)
    dtype, vocab_size = loss_dtype(logits.dtype), logits.shape[-1]
    labels = integer_labels(labels, logits.shape[:-1], "logits")
    mask = row_mask(where, labels.shape)
    # Mask before arithmetic: NaN in a masked row must not meet any sum, forwards or backwards.
    student = jnp.where(mask[..., None], logits.astype(dtype), 0)
    teacher = jnp.where(mask[..., None], jnp.asarray(teacher_logits).astype(dtype), 0)
    log_p = jax.nn.log_softmax(student)
    valid = (labels >= 0) & (labels < vocab_size)
    safe_labels = jnp.where(mask & valid, labels, 0).astype(jnp.int32)
    nll = -jnp.take_along_axis(log_p, safe_labels[..., None], axis=-1)[..., 0]
    log_teacher = jax.lax.stop_gradient(jax.nn.log_softmax(teacher / temperature))
    softened = jax.nn.log_softmax(student / temperature)
    # 0·(−∞ − …) of a class that the teacher rules out is 0.
    p_teacher = jnp.exp(log_teacher)
    some = p_teacher > 0
    difference = jnp.where(some, log_teacher, 0) - jnp.where(some, softened, 0)
    divergence = jnp.sum(p_teacher * difference, axis=-1)
    beta = jnp.asarray(beta, dtype)
    squared = jnp.asarray(temperature, dtype) ** 2
    loss = times(1 - beta, nll) + times(beta * squared, divergence)
    loss = loss * jnp.where(valid | ~mask, 1, jnp.nan).astype(dtype)
    return jnp.where(mask, loss, 0)
