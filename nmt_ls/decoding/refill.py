"""Beam search of many sentences, few at a time: whoever is done makes room for the next.

A batch that is searched to its end runs as long as its slowest sentence; on real text that is half
as long again as the mean. Here all is one program, so that no compilation and no transfer is added
(continuous batching, as Orca, Yu et al. 2022, and vLLM serve with, inside of XLA's loop).

The shape of every value stands behind it: N sentences in all, R of them at a time.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int

from nmt_ls.decoding.beam import Asked, BeamSearch, Hypotheses, Search


class _Pool(NamedTuple):
    live: Search
    """R sentences; a row that is done is free. Its cache: (memories, past)."""
    asked: Asked
    """Of those R."""
    numbers: Int[Array, "R"]
    """Which sentence is in each row; N: none."""
    ready: Any
    """Memories of R sentences, the last that were encoded."""
    encoded: Int[Array, ""]
    taken: Int[Array, ""]
    found: Hypotheses
    """Of all N."""


def refilled_search(
    search: BeamSearch,
    past: Any,
    encode: Callable[[Array], Any],
    asked: Asked,
    count: Int[Array, ""],
    rows: int,
) -> Hypotheses:
    """What `beam_search` finds for each sentence; traceable, shapes are fixed.

    A sentence's hypotheses do not depend on who is searched beside it.

    Args:
      search: its `step` is given the cache (memories, past), and its `reorder` keeps the memories.
      past: of R sentences, empty.
      encode: number of a sentence → memories, leaves `[R, …]`, of it and those that follow.
      asked: of each of the N sentences, of which R is a divisor.
      count: so many sentences are real; those after them are left out.
      rows: R.
    """
    total = len(asked.limits)
    # Taking in the next is one pass over the memories, so that not each sentence has its own.
    enough = max(1, rows // 8)
    nothing = jnp.zeros((), jnp.int32)
    encode = jax.jit(encode)  # traced once for its shapes and for its work
    ready = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(encode, nothing))
    fresh = search.start(rows, (ready, past))
    nobody = fresh._replace(
        groups=tuple(g._replace(done=jnp.ones(rows, bool)) for g in fresh.groups)
    )
    found = jax.tree.map(
        lambda x: jnp.broadcast_to(x[:1], (total, *x.shape[1:])), search.found(fresh)
    )

    def refill(pool: _Pool) -> _Pool:
        """Stores what is done, and puts the next sentences in its place."""
        free = pool.live.done
        stored = jnp.where(free, pool.numbers, total)
        found = jax.tree.map(
            lambda all_, of_rows: all_.at[stored].set(of_rows, mode="drop"),
            pool.found, search.found(pool.live),
        )  # fmt: skip
        more = (pool.taken == pool.encoded) & (pool.encoded < count)
        ready = jax.lax.cond(more, encode, lambda _: pool.ready, pool.encoded)
        encoded = pool.encoded + jnp.where(more, rows, 0)
        number = pool.taken + jnp.cumsum(free) - 1
        takes = free & (number < jnp.minimum(encoded, count))
        number = jnp.where(takes, number, 0)
        place = jnp.where(takes, number - (encoded - rows), 0)

        def new(of_ready: Any, old: Any, at: Int[Array, "R"] | None) -> Any:
            def one(x, y):
                picked = x if at is None else jnp.take(x, at, axis=0)
                return jnp.where(takes.reshape(-1, *(1 for _ in y.shape[1:])), picked, y)

            return jax.tree.map(one, of_ready, old)

        memories, past = pool.live.cache
        live = Search(
            new(fresh.position, pool.live.position, None),
            new(fresh.groups, pool.live.groups, None),
            (new(ready, memories, place), past),  # nobody reads what others said before
        )
        return _Pool(
            live,
            new(asked, pool.asked, number),
            jnp.where(takes, number, jnp.where(free, total, pool.numbers)),
            ready,
            encoded,
            pool.taken + jnp.sum(takes),
            found,
        )

    def advance(pool: _Pool) -> _Pool:
        pool = refill(pool)

        def going(live: Search) -> Bool[Array, ""]:
            room = (pool.taken < count) & (jnp.sum(live.done) >= enough)
            return ~jnp.all(live.done) & ~room

        live = jax.lax.while_loop(going, lambda s: search.advance(s, pool.asked), pool.live)
        return pool._replace(live=live)

    def going(pool: _Pool) -> Bool[Array, ""]:
        return (pool.taken < count) | jnp.any(pool.numbers < total)

    begin = _Pool(
        nobody, jax.tree.map(lambda x: x[:rows], asked), jnp.full(rows, total), ready, nothing,
        nothing, found,
    )  # fmt: skip
    return jax.lax.while_loop(going, advance, begin).found
