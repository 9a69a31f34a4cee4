"""The decoder's past: keys and values of what each hypothesis has said, and who said it.

Hypotheses that descend from one another share their past. Instead of moving keys and values when
hypotheses are dropped and doubled, a table of ancestors says which slots of its sentence each one
reads; only that table is reordered. The products run over the slots of all K hypotheses of a
sentence, K times as many as are needed, which up to `SHARED` costs less than moving them.

Positions lie in blocks of 16, 16, 32, 64, … (on a CPU), so that as much of the past is read as the
longest row has, and nothing is copied for it. Sums over positions are taken block by block, and
what a row does not read is exactly 0: how long the other rows are changes no bit of it.

The shape of every value stands behind it: R rows of G hypotheses each (a sentence and its K, or
one hypothesis alone), T positions, n of them in a block, H heads, C channels a head.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

SHARED = 16
"""Up to so many hypotheses of a sentence share their slots; more have their own, and move."""

_FIRST_BLOCK = {"cpu": 16}
"""On others 64: there a condition waits for the host, and reading costs less."""

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
    """A cache for so many hypotheses, of which each `shared` neighbours share a row.

    On an accelerator it has a multiple of 8 positions: those of no use are never read, but products
    of another size would be of copies, filled up to one, of all that is kept.
    """
    rows = hypotheses // shared
    if isinstance(length, int) and jax.default_backend() != "cpu":
        length = -(-length // 8) * 8

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
    first = _FIRST_BLOCK.get(jax.default_backend(), 64)
    sizes = [min(length, first)]
    while left := length - sum(sizes):
        if left < first:
            sizes[-1] += left
        else:
            sizes.append(min(sum(sizes), left))
    return sizes


def with_own_slots(cache: Cache, position: Int[Array, "R"]) -> Cache:
    """What hypothesis g says at its row's `position` is in slot g."""
    _, shared, length = cache.ancestors.shape
    here = jnp.arange(length) == position[:, None, None]  # [R, 1, T]
    return cache._replace(ancestors=jnp.where(here, jnp.arange(shared)[:, None], cache.ancestors))


def reordered(cache: Cache, parents: Int[Array, "B K"]) -> Cache:
    """The cache of hypotheses of which the k-th of sentence b descends from `parents[b, k]`."""
    batch, beam = parents.shape
    if cache.ancestors.shape[1] > 1:
        ancestors = jnp.take_along_axis(cache.ancestors, parents[..., None], axis=1)
        return cache._replace(ancestors=ancestors)
    rows = (jnp.arange(batch)[:, None] * beam + parents).reshape(-1)
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), cache)


def readable(cache: Cache, position: Int[Array, "R"]) -> Bool[Array, "R G T G"]:
    """Which slots each hypothesis reads: its ancestors' and its own, up to `position`."""
    shared, length = cache.ancestors.shape[1:]
    theirs = cache.ancestors[..., None] == jnp.arange(shared)
    return theirs & (jnp.arange(length) <= position[:, None])[:, None, :, None]


def attend_past(
    q: Float[Array, "R G H C"],
    k: Float[Array, "R G H C"],
    v: Float[Array, "R G H C"],
    slots: Slots,
    reads: Bool[Array, "R G T G"],
    position: Int[Array, "R"],
) -> tuple[Float[Array, "R G H C"], Slots]:
    """Attention over the past and each row's `position`, whose keys and values are written first.

    The softmax is in float32. Only so much of the cache is read as the longest row has filled.
    """
    sizes = _blocks(reads.shape[2])
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    # A row is used by one sentence after another, and 0 times what the last one left must be 0.
    finite = jnp.isfinite(v)
    kept = jnp.where(finite, v, 0)
    slots = [
        _written(block, k, kept, position - (end - size), size)
        for block, end, size in zip(slots, ends, sizes, strict=True)
    ]

    q = jnp.swapaxes(q, 1, 2)  # [R, H, G, C]
    longest = jnp.max(position)
    parts = []
    for block, end, size in zip(slots, ends, sizes, strict=True):
        mask = reads if len(sizes) == 1 else reads[:, :, end - size : end]
        mask = mask.reshape(q.shape[0], 1, q.shape[2], -1)
        if end == sizes[0]:
            parts.append(_over_block(q, *block, mask))
            continue
        # Each block by itself: the same code for it, however many others are read.
        unread = jax.tree.map(jnp.zeros_like, parts[0])
        unread = unread._replace(largest=jnp.full_like(unread.largest, _lowest(unread.largest)))
        read = longest >= end - size
        parts.append(jax.lax.cond(read, _over_block, lambda *_, x=unread: x, q, *block, mask))
    largest = functools.reduce(jnp.maximum, (part.largest for part in parts))
    shares = [jnp.exp(part.largest - largest) for part in parts]
    total = sum(part.total * share for part, share in zip(parts, shares, strict=True))
    y = sum(part.summed * share for part, share in zip(parts, shares, strict=True))
    y = jnp.swapaxes(y / total, 1, 2).astype(v.dtype)
    return jnp.where(finite, y, v), slots  # whoever says NaN has NaN


class _Part(NamedTuple):
    """Attention over a block: Σ exp(logit − largest), alone and times the values."""

    largest: Float[Array, "R H G 1"]
    total: Float[Array, "R H G 1"]
    summed: Float[Array, "R H G C"]


def _over_block(q, keys, values, mask) -> _Part:
    logits = jnp.einsum("rhgc,rhcs->rhgs", q, keys, preferred_element_type=jnp.float32)
    logits = jnp.where(mask, logits * q.shape[-1] ** -0.5, _lowest(logits))
    largest = jnp.max(logits, -1, keepdims=True)
    weights = jnp.exp(logits - largest)
    summed = jnp.einsum(
        "rhgs,rhsc->rhgc", weights.astype(q.dtype), values, preferred_element_type=jnp.float32
    )
    return _Part(largest, jnp.sum(weights, -1, keepdims=True), summed)


def _lowest(x: Array) -> float:
    return float(jnp.finfo(x.dtype).min)


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


def _written(block, k, v, at: Int[Array, "R"], size: int):
    """The block with keys and values of all hypotheses at their row's position `at`, if it has it.

    k, v: `[R, G, H, C]`.
    """
    keys, values = block
    rows, heads, channels, _ = keys.shape
    row = jnp.arange(rows)
    at = jnp.where(at < 0, size, at)  # beyond the end: nowhere
    once = {"mode": "drop", "unique_indices": True, "indices_are_sorted": True}
    keys = keys.reshape(rows, heads, channels, size, -1)
    values = values.reshape(rows, heads, size, -1, channels)
    keys = keys.at[row, :, :, at].set(k.transpose(0, 2, 3, 1), **once)
    values = values.at[row, :, at].set(v.swapaxes(1, 2), **once)
    return keys.reshape(block[0].shape), values.reshape(block[1].shape)
