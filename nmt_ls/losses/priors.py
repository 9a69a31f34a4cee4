"""Distributions over the classes that receive ε: the losses' `prior`."""

from collections.abc import Iterable

import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Float


def uniform_prior(vocab_size: int, exclude: Iterable[int] = ()) -> Float[np.ndarray, "V"]:
    """The same for every class but those of `exclude` (the padding, say), which get nothing.

    Example:
      >>> uniform_prior(4, exclude=[0]).round(3)
      array([0.   , 0.333, 0.333, 0.333], dtype=float32)

    Raises:
      ValueError: an id outside the vocabulary, or nothing left.
    """
    return _normalised(np.ones(vocab_size), exclude, "uniform prior")


def unigram_prior(
    counts: ArrayLike,
    *,
    temperature: float = 1.0,
    pseudo_count: float = 0.0,
    exclude: Iterable[int] = (),
) -> Float[np.ndarray, "V"]:
    """∝ (count + pseudo_count)^(1/temperature), the unigram distribution of the training text.

    A temperature of 1 is Pereyra et al. 2017 (arXiv 1701.06548, §3.2); with rising temperature it
    becomes uniform (over the classes that occur, where `pseudo_count` is 0).

    Args:
      counts: `[V]`, how often each class occurs.
      temperature: above 0.
      pseudo_count: added to each count, so that no class has none.
      exclude: ids that receive nothing.

    Example:
      >>> unigram_prior([0, 1, 4]).round(2), unigram_prior([0, 1, 4], temperature=2).round(2)
      (array([0. , 0.2, 0.8], dtype=float32), array([0.  , 0.33, 0.67], dtype=float32))

    Raises:
      ValueError: negative counts, a temperature that is not above 0, or nothing left.
    """
    counts = np.asarray(counts, np.float64)
    if counts.ndim != 1 or not np.all(counts >= 0) or not np.all(np.isfinite(counts)):
        raise ValueError("counts must be [V], finite and at least 0")
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be above 0")
    if not pseudo_count >= 0:
        raise ValueError(f"pseudo_count={pseudo_count} must be at least 0")
    counts = counts + pseudo_count
    some = counts > 0
    # In logarithms: a small temperature would overflow.
    logs = np.log(counts, where=some, out=np.full_like(counts, -np.inf)) / temperature
    if not some.any():
        raise ValueError("counts are all 0: nothing is there to receive ε")
    return _normalised(np.exp(logs - np.max(logs)), exclude, "unigram prior")


def masked_prior(target_counts: ArrayLike, exclude: Iterable[int] = ()) -> Float[np.ndarray, "V"]:
    """The same for every class that occurs on the target side, nothing for all others.

    Masked label smoothing (Chen et al. 2022, arXiv 2203.02889): in a vocabulary that both languages
    share, source-only subwords are no plausible mistakes and should receive no mass.

    Args:
      target_counts: `[V]`, how often each class occurs in target text.
      exclude: ids that receive nothing either.

    Example:
      >>> masked_prior([3, 0, 1, 9], exclude=[0])
      array([0. , 0. , 0.5, 0.5], dtype=float32)

    Raises:
      ValueError: negative counts, or nothing left.
    """
    counts = np.asarray(target_counts)
    if counts.ndim != 1 or not np.all(counts >= 0):
        raise ValueError("target_counts must be [V] and at least 0")
    return _normalised((counts > 0).astype(np.float64), exclude, "masked prior")


def _normalised(weights: np.ndarray, exclude: Iterable[int], name: str) -> np.ndarray:
    for class_id in exclude:
        if not 0 <= class_id < len(weights):
            raise ValueError(f"exclude={class_id} is outside the vocabulary of {len(weights)}")
        weights[class_id] = 0
    total = weights.sum()
    if not total > 0:
        raise ValueError(f"the {name} leaves no class to receive ε")
    return (weights / total).astype(np.float32)
