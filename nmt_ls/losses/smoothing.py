"""How much is smoothed, and to where: toolkits' conventions, schedules, ε and weights per token."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from nmt_ls.losses.arguments import integer_labels, loss_dtype, static

_INCLUDED = ("pytorch", "optax", "huggingface", "marian")
_EXCLUDED = ("fairseq",)
_EXCLUDED_MINUS_ENTROPY = ("t5x", "flax_wmt")
CONVENTIONS = (*_INCLUDED, *_EXCLUDED, *_EXCLUDED_MINUS_ENTROPY, "joeynmt")
"""Names that `convention` knows."""


def convention(name: str, vocab_size: int, pad_id: int | None = None) -> dict[str, Any]:
    """Keyword arguments for the losses that reproduce a toolkit's loss exactly.

    "pytorch" (`torch.nn.functional.cross_entropy`), "optax" (`smooth_labels`), "huggingface"
    (`LabelSmoother`), "marian" (`src/layers/loss.h`): ε/V on every class, the target included.
    "fairseq" (`label_smoothed_nll_loss`): ε/(V−1) on the other classes.
    "t5x" (`losses.py`), "flax_wmt" (`examples/wmt`): the same, minus the target's entropy.
    "joeynmt" (`XentLoss`): ε/(V−2) on the other classes except `pad_id`, minus the entropy.

    Example:
      >>> convention("fairseq", vocab_size=32_000)
      {'exclude_target': True}

    Raises:
      ValueError: an unknown name, or "joeynmt" without a `pad_id` in the vocabulary.
    """
    if name in _INCLUDED:
        return {}
    if name in _EXCLUDED:
        return {"exclude_target": True}
    if name in _EXCLUDED_MINUS_ENTROPY:
        return {"exclude_target": True, "subtract_entropy": True}
    if name == "joeynmt":
        if pad_id is None:
            raise ValueError('convention "joeynmt" gives the padding no mass and needs pad_id')
        if not 0 <= pad_id < vocab_size:
            raise ValueError(f"pad_id={pad_id} is outside the vocabulary of {vocab_size}")
        prior = np.ones(vocab_size, np.float32)
        # With two classes nobody is left to receive ε: the loss keeps it on the target then.
        prior[pad_id] = 0 if vocab_size > 1 else 1
        return {"prior": prior, "exclude_target": True, "subtract_entropy": True}
    raise ValueError(f"no smoothing convention {name!r}; known: {', '.join(CONVENTIONS)}")


def scheduled_smoothing(
    step: int, steps: int, start: float, final: float, schedule: str = "constant"
) -> float:
    """ε at `step` (counted from 0) of `steps`: constant, or linear or cosine from start to final.

    Example:
      >>> [round(scheduled_smoothing(k, 5, 0.2, 0.0, "linear"), 3) for k in range(5)]
      [0.2, 0.15, 0.1, 0.05, 0.0]

    Raises:
      ValueError: an unknown schedule.
    """
    if schedule == "constant":
        return start
    progress = min(step / max(steps - 1, 1), 1.0)
    if schedule == "linear":
        return start + (final - start) * progress
    if schedule == "cosine":
        return final + (start - final) * 0.5 * (1 + math.cos(math.pi * progress))
    raise ValueError(f"no smoothing schedule {schedule!r}; known: constant, linear, cosine")


def graduated_smoothing(
    nll: Float[Array, "..."],
    *,
    below: float = 0.3,
    above: float = 0.7,
    smoothing: tuple[ArrayLike, ArrayLike, ArrayLike] = (0.0, 0.1, 0.3),
) -> Float[Array, "..."]:
    """ε of each token from how sure a model is of its label (Wang et al. 2020, arXiv 2005.00963).

    The surer, the more it is smoothed: the first value where exp(−nll) is under `below`, the last
    where it is over `above`, the second between. The paper's numbers are the defaults; its
    confidences are of a model trained before. A model's own can be used as well: `nll` is held
    constant (no gradient), so that ε is data.

    Args:
      nll: `[...]`, −log p(label) in nats, as `token_statistics(...).nll`.
      below, above: thresholds of the probability.
      smoothing: ε of tokens under, between and over them; numbers, which may be traced.

    Example:
      >>> graduated_smoothing(-jnp.log(jnp.array([0.1, 0.5, 0.9])))
      Array([0. , 0.1, 0.3], dtype=float32)

    Raises:
      ValueError: thresholds out of order or outside [0, 1].
    """
    if not 0 <= below <= above <= 1:
        raise ValueError(f"below={below} and above={above} must be 0 ≤ below ≤ above ≤ 1")
    nll = jax.lax.stop_gradient(jnp.asarray(nll))
    confidence = jnp.exp(-nll)
    unsure, between, sure = (jnp.asarray(s, loss_dtype(nll.dtype)) for s in smoothing)
    return jnp.where(confidence > above, sure, jnp.where(confidence < below, unsure, between))


class ClassWeighted(NamedTuple):
    """What makes the losses weigh classes as PyTorch does."""

    weights: Float[Array, "..."]
    """Factor of each token's loss."""
    label_smoothing: Float[Array, "..."]
    """ε of each token."""
    prior: Float[Array, "V"]
    """Who receives it."""
    denominator_weights: Float[Array, "..."]
    """Weight of each token's label: PyTorch's mean divides by their sum."""


def class_weighted(
    labels: Int[Array, "..."], weights: ArrayLike, label_smoothing: ArrayLike = 0.1
) -> ClassWeighted:
    """The weights, ε and prior that reproduce `torch…cross_entropy(weight=, label_smoothing=)`.

    PyTorch weighs each class of the smoothed target: −Σ_v w_v q_v log p_v, whose mass is not 1.
    With W = Σ w that is r·(loss with ε' = ε·W/(V·r) on the prior w/W), r = (1−ε)·w_y + ε·W/V.

    Args:
      labels: `[...]`; outside [0, V) (padding) the weight is 0: mask such tokens.
      weights: `[V]`, w ≥ 0.
      label_smoothing: ε, a number or `[...]`.

    Example:
      >>> labels, weights = jnp.array([0, 2]), jnp.array([1.0, 1.0, 4.0])
      >>> row, epsilon, prior, _ = class_weighted(labels, weights, 0.1)
      >>> row
      Array([1.1, 3.8], dtype=float32)

    Raises:
      TypeError: labels that are no integers.
      ValueError: weights that are negative, not finite, all 0, or no vector.
    """
    known = static(weights)
    if known is not None and not (
        known.ndim == 1 and np.all(known >= 0) and np.all(np.isfinite(known)) and np.any(known > 0)
    ):
        raise ValueError(
            "weights must be [V], one for each class, finite, at least 0 and some above 0"
        )
    w = jnp.asarray(weights)
    w = w.astype(loss_dtype(w.dtype))
    labels = integer_labels(labels, np.shape(labels), "labels")
    inside = (labels >= 0) & (labels < len(w))
    of_label = jnp.where(inside, w[jnp.where(inside, labels, 0)], 0)
    spread = jnp.asarray(label_smoothing, w.dtype) * jnp.mean(w)
    row = (1 - jnp.asarray(label_smoothing, w.dtype)) * of_label + spread
    # A token whose whole target weighs nothing (ε = 0 and w_y = 0) counts for nothing.
    epsilon = jnp.where(row > 0, spread / jnp.where(row > 0, row, 1), 0)
    return ClassWeighted(jnp.where(inside, row, 0), epsilon, w / jnp.sum(w), of_label)
