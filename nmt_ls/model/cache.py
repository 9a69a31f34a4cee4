"""The decoder's past: keys and values of what each hypothesis has said, and who said it.

Hypotheses that descend from one another share their past. Instead of moving keys and values when
hypotheses are dropped and doubled, a table of ancestors says which slots of its sentence each one
reads; only that table is reordered. The products run over the slots of all K hypotheses of a
sentence, K times as many as are needed, which up to `SHARED` costs less than moving them.

Positions lie in blocks of 16, 16, 32, 64, …, so that as much of the past is read as there is, and
nothing is copied for it.

The shape of every value stands behind it: R rows of G hypotheses each (a sentence and its K, or
one hypothesis alone), T positions, n of them in a block, H heads, C channels a head.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

SHARED = 16
"""Up to so many hypotheses of a sentence share their slots; more have their own, and move."""

_FIRST_BLOCK = 16

Slots = list[tuple[Float[Array, "R H C n*G"], Float[Array, "R H n*G C"]]]
"""Keys and values of one layer, block by block; each lies as its product wants to read it."""

SourceSlots = tuple[Float[Array, "B H C S"], Float[Array, "B H S C"]]
"""Keys and values of a sentence's source in one layer."""


class Cache(NamedTuple):
    """What N = R·G hypotheses of up to T tokens have said."""

    layers: list[Slots]
    ancestors: Int[Array, "R G T"]
    """For each hypothesis and position: which of its row's G slots is its own past."""


def empty_cache(
    hypotheses: int, length: int, *, shared: int, layers: int, heads: int, channels: int, dtype
) -> Cache:
    """A cache for so many hypotheses, of which each `shared` neighbours share a row."""
    rows = hypotheses // shared

    def layer() -> Slots:
        return [
            (
                jnp.zeros((rows, heads, channels, size * shared), dtype),
                jnp.zeros((rows, heads, size * shared, channels), dtype),
            )
            for size in _blocks(length)
        ]

    return Cache([layer() for _ in range(layers)], jnp.zeros((rows, shared, length), jnp.int32))


def _blocks(length: int) -> list[int]:
    """Sizes of the blocks that hold so many positions: each doubles the whole, none is small.

    A length that is a symbol (`jax.export`) is one block.
    """
    if not isinstance(length, int):
        return [length]
    sizes = [min(length, _FIRST_BLOCK)]
    while left := length - sum(sizes):
        if left < _FIRST_BLOCK:
            sizes[-1] += left
        else:
            sizes.append(min(sum(sizes), left))
    return sizes


def with_own_slots(cache: Cache, position: Int[Array, ""]) -> Cache:
    """What hypothesis g says at `position` is in slot g."""
    rows, shared, _ = cache.ancestors.shape
    own = jnp.broadcast_to(jnp.arange(shared), (rows, shared))
    ancestors = jax.lax.dynamic_update_index_in_dim(cache.ancestors, own, position, axis=2)
    return cache._replace(ancestors=ancestors)


def reordered(cache: Cache, parents: Int[Array, "B K"]) -> Cache:
    """The cache of hypotheses of which the k-th of sentence b descends from `parents[b, k]`."""
    batch, beam = parents.shape
    if cache.ancestors.shape[1] > 1:
        ancestors = jnp.take_along_axis(cache.ancestors, parents[..., None], axis=1)
        return cache._replace(ancestors=ancestors)
    rows = (jnp.arange(batch)[:, None] * beam + parents).reshape(-1)
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), cache)


def readable(cache: Cache, position: Int[Array, ""]) -> Bool[Array, "R G T G"]:
    """Which slots each hypothesis reads: its ancestors' and its own, up to `position`."""
    shared, length = cache.ancestors.shape[1:]
    theirs = cache.ancestors[..., None] == jnp.arange(shared)
    return theirs & (jnp.arange(length) <= position)[:, None]


def attend_past(
    q: Float[Array, "R G H C"],
    k: Float[Array, "R G H C"],
    v: Float[Array, "R G H C"],
    slots: Slots,
    reads: Bool[Array, "R G T G"],
    position: Int[Array, ""],
) -> tuple[Float[Array, "R G H C"], Slots]:
    """Attention over the past and `position`, whose keys and values are written first.

    The softmax is in float32. Only so much of the cache is read as is filled.
    """
    shared, length = reads.shape[1:3]
    sizes = _blocks(length)
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    slots = [
        _written(block, k, v, position - (end - size), size)
        for block, end, size in zip(slots, ends, sizes, strict=True)
    ]
    scale = q.shape[-1] ** -0.5

    def over(blocks: int):
        def attend(q, slots, reads):
            q = jnp.swapaxes(q, 1, 2)  # [R, H, G, C]
            mask = reads[:, :, : ends[blocks - 1]].reshape(q.shape[0], 1, shared, -1)
            logits = [
                jnp.einsum("rhgc,rhcs->rhgs", q, keys, preferred_element_type=jnp.float32)
                for keys, _ in slots[:blocks]
            ]
            whole = logits[0] if blocks == 1 else jnp.concatenate(logits, axis=-1)
            whole = jnp.where(mask, whole * scale, jnp.finfo(whole.dtype).min)
            weights = jax.nn.softmax(whole, axis=-1).astype(q.dtype)
            y, start = jnp.zeros_like(q), 0
            for _, values in slots[:blocks]:
                part = weights[..., start : start + values.shape[2]]
                y = y + jnp.einsum("rhgs,rhsc->rhgc", part, values)
                start += values.shape[2]
            return jnp.swapaxes(y, 1, 2)

        return attend

    filled = sum((position >= end).astype(jnp.int32) for end in ends[:-1])
    if len(sizes) == 1:
        return over(1)(q, slots, reads), slots
    return jax.lax.switch(filled, [over(i + 1) for i in range(len(sizes))], q, slots, reads), slots


def source_slots(keys: Float[Array, "B S H C"], values: Float[Array, "B S H C"]) -> SourceSlots:
    """A layer's memory as `attend_source` reads it: laid out once, not at each step."""
    return keys.transpose(0, 2, 3, 1), values.transpose(0, 2, 1, 3)


def attend_source(
    q: Float[Array, "B K H C"], slots: SourceSlots, lengths: Int[Array, "B"]
) -> Float[Array, "B K H C"]:
    """Attention of a sentence's K hypotheses over its memory; the softmax is in float32."""
    keys, values = slots
    real = (jnp.arange(keys.shape[-1]) < lengths[:, None])[:, None, None]
    logits = jnp.einsum(
        "bhkc,bhcs->bhks", jnp.swapaxes(q, 1, 2), keys, preferred_element_type=jnp.float32
    )
    logits = jnp.where(real, logits * q.shape[-1] ** -0.5, jnp.finfo(logits.dtype).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(q.dtype)
    return jnp.swapaxes(jnp.einsum("bhks,bhsc->bhkc", weights, values), 1, 2)


def _written(block, k, v, at: Int[Array, ""], size: int):
    """The block with keys and values of all hypotheses at its position `at`, if it has that."""
    shared = k.shape[1]
    start = jnp.clip(at, 0, size - 1) * shared
    inside = (at >= 0) & (at < size)
    written = []
    # [R, G, H, C] → [R, H, C, G] and [R, H, G, C]
    for old, new, axis in zip(
        block, (k.transpose(0, 2, 3, 1), v.swapaxes(1, 2)), (3, 2), strict=True
    ):
        before = jax.lax.dynamic_slice_in_dim(old, start, shared, axis=axis)
        new = jnp.where(inside, new, before)
        written.append(jax.lax.dynamic_update_slice_in_dim(old, new, start, axis=axis))
    return tuple(written)
