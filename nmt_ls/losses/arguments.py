"""What the losses accept, and what they say of anything else."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float


def loss_dtype(dtype) -> jnp.dtype:
    """The type that a loss is computed in: at least float32, float64 for float64."""
    return jnp.promote_types(dtype, jnp.float32)


def static(value: Any) -> np.ndarray | None:
    """The number or array, or None where it is traced and its value cannot be known yet."""
    return None if isinstance(value, jax.core.Tracer) else np.asarray(value)


def is_zero(value: Any) -> bool:
    """Whether it is known now to be 0 (a Python or numpy number), so that its term can be left out.

    A jax array is not looked at: that would wait for the device.
    """
    return isinstance(value, bool | int | float | np.number) and value == 0


def constant_or_none(value: ArrayLike, dtype) -> Array | None:
    """`value` without a gradient; None where it is known to be 0."""
    return None if is_zero(value) else jax.lax.stop_gradient(jnp.asarray(value, dtype))


def float_array(name: str, values: ArrayLike) -> Array:
    """`values` as an array, refused unless its type is floating.

    Raises:
      TypeError: any other type.
    """
    array = jnp.asarray(values)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} has type {array.dtype}; it must be floating")
    return array


def integer_labels(labels: ArrayLike, shape: tuple[int, ...], of: str) -> Array:
    """Labels of a type that can be compared with any V: 300 as int8 would be 44.

    What 32 bits do not hold is no class, and stays none: 2**32 would be 0.

    Raises:
      TypeError: labels that are no integers.
      ValueError: labels whose shape is not `shape`, that of the rows of `of`.
    """
    if isinstance(labels, np.ndarray | np.generic | int):
        known = np.asarray(labels)
        if known.dtype.kind in "iu" and known.dtype.itemsize > 4:
            lowest = max(np.iinfo(known.dtype).min, -(2**31))
            labels = np.clip(known, lowest, 2**31 - 1).astype(np.int32)
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(f"labels have type {labels.dtype}; they must be integer class ids")
    if labels.shape != shape:
        raise ValueError(f"labels have shape {labels.shape}; the rows of {of} have shape {shape}")
    return labels.astype(jnp.int32) if labels.dtype.itemsize < 4 else labels


def row_mask(where: ArrayLike | None, shape: tuple[int, ...]) -> Bool[Array, "..."]:
    """`where` (`[...]` or `[..., 1]`, any type) as booleans of the labels' shape.

    Raises:
      ValueError: a shape that selects classes, or that does not broadcast to `shape`.
    """
    if where is None:
        return jnp.ones(shape, bool)
    mask = jnp.asarray(where).astype(bool)
    if mask.ndim == len(shape) + 1:
        if mask.shape[-1] != 1:
            raise ValueError(
                f"where has shape {mask.shape}, but selects rows of shape {shape}, not classes; to "
                "leave classes out set their logits to -inf and their prior to 0"
            )
        mask = mask[..., 0]
    return broadcast("where", mask, shape)


def broadcast(name: str, array: Array, shape: tuple[int, ...]) -> Array:
    """`array` of the given shape.

    Raises:
      ValueError: where it does not broadcast to it.
    """
    try:
        return jnp.broadcast_to(array, shape)
    except ValueError:
        raise ValueError(f"{name} has shape {array.shape}; it must broadcast to {shape}") from None


def smoothing_of_rows(label_smoothing: ArrayLike, shape: tuple[int, ...], dtype) -> Array:
    """ε of each row.

    Raises:
      ValueError: a static ε outside [0, 1], or one that does not broadcast to `shape`.
    """
    known = static(label_smoothing)
    if known is not None and not np.all((known >= 0) & (known <= 1)):
        shown = known if known.ndim == 0 else f"{known.min()} to {known.max()}"
        raise ValueError(f"label_smoothing={shown} is outside [0, 1]")
    return broadcast("label_smoothing", jnp.asarray(label_smoothing, dtype), shape)


def normalised_prior(prior: ArrayLike, dtype, vocab_size: int) -> Float[Array, "... V"]:
    """Non-negative weights of the classes, the last axis, as a distribution; a constant.

    One weight, or one a row, is that of each of the V classes.

    Raises:
      ValueError: static weights that are negative, not finite, or all 0.
    """
    weights, known = prior, static(prior)
    if known is not None:
        if not np.all((known >= 0) & np.isfinite(known)):
            raise ValueError("prior has a weight that is negative or not finite; weights are ≥ 0")
        if not np.all(known.max(axis=-1, initial=0) > 0):
            raise ValueError("prior has no weight above 0: nothing is there to receive ε")
        # Weights that no float32 holds, 1e-60 or 1e39, are a distribution all the same.
        wide = np.atleast_1d(known).astype(np.float64)
        weights = wide / wide.max(axis=-1, keepdims=True)
    weights = jax.lax.stop_gradient(jnp.atleast_1d(jnp.asarray(weights, dtype)))
    if weights.shape[-1] == 1:
        weights = jnp.broadcast_to(weights, (*weights.shape[:-1], vocab_size))
    return weights / jnp.sum(weights, axis=-1, keepdims=True)


def linear_arguments(
    hidden: ArrayLike,
    embedding: ArrayLike,
    bias: ArrayLike | None,
    logit_softcap: float | None,
    chunk_size: int | None,
) -> tuple[Array, Array, Array | None]:
    """Hidden states `[..., D]`, output embedding `[V, D]` and bias `[V]` as arrays that fit.

    Raises:
      ValueError, TypeError: arguments of a wrong shape, type or value, named.
    """
    hidden, embedding = float_array("hidden", hidden), float_array("embedding", embedding)
    if hidden.ndim == 0 or embedding.ndim != 2 or hidden.shape[-1] != embedding.shape[1]:
        raise ValueError(
            f"hidden has shape {hidden.shape} and embedding {embedding.shape}; they must be "
            "[..., D] and [V, D]"
        )
    if bias is not None:
        bias = float_array("bias", bias)
        if bias.shape != embedding.shape[:1]:
            raise ValueError(f"bias has shape {bias.shape}; it must be {embedding.shape[:1]}")
    if chunk_size is not None and not (isinstance(chunk_size, int) and chunk_size > 0):
        raise ValueError(f"chunk_size={chunk_size!r} must be a whole number above 0")
    if logit_softcap is not None and not logit_softcap > 0:
        raise ValueError(f"logit_softcap={logit_softcap} must be above 0")
    return hidden, embedding, bias


def class_axis(axis: Any, ndim: int) -> int:
    """The class axis, counted from 0.

    Raises:
      ValueError: several axes, or one that is not there.
    """
    if not isinstance(axis, int | np.integer):
        raise ValueError(
            f"axis={axis!r} must be one axis; to spread a distribution over several reshape them "
            "into one, and leave classes out with logits of -inf and a prior of 0"
        )
    if not -ndim <= axis < ndim:
        raise ValueError(f"axis={axis} is not an axis of logits, which have {ndim}")
    return int(axis) % ndim


# --- shard_map -----------------------------------------------------------------------------------
# There a value is either the same on all devices of an axis or varies over it, and jax keeps count.


def _axes(tree: Any) -> frozenset:
    """The axes of a `shard_map` over which any of these arrays varies."""
    types = [jax.typeof(x) for x in jax.tree.leaves(tree)]
    # Elsewhere, and where jax is told not to count, there are none.
    return frozenset().union(*(t.manual_axis_type.varying for t in types))


def varying_like(tree: Any, others: Any) -> Any:
    """The same arrays, counted as varying wherever the others do: what a loop starts from."""

    def one(x: Array) -> Array:
        missing = tuple(sorted(_axes(others) - _axes(x)))
        return jax.lax.pcast(x, missing, to="varying") if missing else x

    return jax.tree.map(one, tree)


def summed_like(cotangent: Array, primal: Array) -> Array:
    """A cotangent, summed over the devices that share its primal, as jax sums its own."""
    shared = tuple(sorted(_axes(cotangent) - _axes(primal)))
    return jax.lax.psum(cotangent, shared) if shared else cotangent
