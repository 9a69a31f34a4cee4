"""Beam search over a `step(tokens, position, cache) → log-probabilities` function.

The shape of every value stands behind it: B sentences, K hypotheses each, T positions, V tokens.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nmt_ls.decoding.candidates import best_candidates

Step = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(tokens `[B, K]`, position, cache) → (log-probabilities `[B, K, V]` or `Unnormalised`, cache)."""


@dataclasses.dataclass(frozen=True)
class LengthPenalty:
    """What log-probabilities are divided by; n counts end-of-sentence unless `excludes_eos`.

    "none": 1. "average": n^alpha (fairseq's `lenpen`, Marian's `normalize`, CTranslate2).
    "gnmt": ((5+n)/6)^alpha (Wu et al. 2016, eq. 14).
    """

    kind: str = "average"
    alpha: float = 1.0
    excludes_eos: bool = False

    def __call__(self, length: Array) -> Float[Array, "..."]:
        """The divisor for hypotheses of `length` tokens, end-of-sentence included."""
        n = jnp.asarray(length, jnp.float32)
        if self.excludes_eos:
            n = jnp.maximum(n - 1, 1)
        if self.kind == "none":
            return jnp.ones_like(n)
        if self.kind == "average":
            return n**self.alpha
        if self.kind == "gnmt":
            return ((5 + n) / 6) ** self.alpha
        raise ValueError(f"no length penalty {self.kind!r}")


class Hypotheses(NamedTuple):
    """The K best finished hypotheses of each sentence, best first."""

    tokens: Int[Array, "B K T"]
    """Ids, end-of-sentence included, then padding."""
    scores: Float[Array, "B K"]
    """log p / length penalty; −inf where fewer than K were found."""
    log_probs: Float[Array, "B K"]
    """log p in nats, end-of-sentence included."""
    lengths: Int[Array, "B K"]
    """Tokens, end-of-sentence included."""
    paths: Float[Array, "B K T"]
    """log p of the tokens up to each one, itself included; 0 after the end."""


class _State(NamedTuple):
    position: Int[Array, ""]
    tokens: Int[Array, "B K T"]
    paths: Float[Array, "B K T"]
    log_probs: Float[Array, "B K"]
    cache: Any
    finished: Hypotheses
    done: Array


def rows_reordered(cache: Any, parents: Int[Array, "B K"]) -> Any:
    """A cache whose leaves are `[B·K, …]`, moved to the hypotheses that descend from `parents`."""
    batch, beam = parents.shape
    rows = (jnp.arange(batch)[:, None] * beam + parents).reshape(-1)  # [B·K]
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), cache)


def beam_search(
    step: Step,
    cache: Any,
    limits: Int[Array, "B"],
    *,
    beam: int,
    length: int,
    penalty: LengthPenalty,
    bos: int,
    eos: int,
    pad: int,
    reorder: Callable[[Any, Array], Any] = rows_reordered,
    stopping: Literal["bound", "first_k"] = "bound",
    shortest: Int[Array, "B"] | None = None,
    prefix: Int[Array, "B P"] | None = None,
) -> Hypotheses:
    """The best hypotheses found with `beam` live ones a sentence. Traceable; shapes are fixed.

    A hypothesis finishes when end-of-sentence is among the `beam` best of 2·beam candidates
    (fairseq). With beam 1 the first finished one is the answer, which makes it greedy search.

    Args:
      step: may return log-probabilities that are not normalised over V.
      cache: what `step` reads and fills.
      limits: longest output of each sentence, end-of-sentence included; it is forced there.
      length: T, at least the largest limit.
      reorder: (cache, parents `[B, K]`) → the cache of hypotheses that descend from these.
      stopping: "bound": a sentence is done when no live hypothesis can still beat its worst
        finished one, which is exact because the penalty grows with length. "first_k": when `beam`
        hypotheses have finished (CTranslate2, and fairseq's default).
      shortest: fewest tokens of each sentence's output, end-of-sentence included.
      prefix: tokens that each output begins with, then padding; they count in its log p.
    """
    batch = limits.shape[0]
    candidates = 2 * beam
    empty = jnp.full((batch, beam, length), pad, jnp.int32)  # [B, K, T]
    never = jnp.full((batch, beam), -jnp.inf)  # [B, K]
    start = _State(
        position=jnp.zeros((), jnp.int32),
        tokens=empty,
        paths=jnp.zeros(empty.shape),
        # All hypotheses start equal, so only the first may count.
        log_probs=jnp.where(jnp.arange(beam) == 0, 0.0, -jnp.inf) * jnp.ones((batch, 1)),
        cache=cache,
        finished=Hypotheses(
            empty, never, never, jnp.zeros((batch, beam), jnp.int32), jnp.zeros(empty.shape)
        ),
        done=jnp.zeros(batch, bool),
    )

    def advance(s: _State) -> _State:
        i = s.position
        before = jax.lax.dynamic_index_in_dim(s.tokens, jnp.maximum(i - 1, 0), 2, keepdims=False)
        last = jnp.where(i == 0, bos, before)  # [B, K]
        log_p, cache = step(last, i, s.cache)  # [B, K, V]
        at_limit = i + 1 >= limits  # [B]
        only = jnp.full(batch, -1)
        if prefix is not None and prefix.shape[1]:
            given = jnp.take(prefix, jnp.minimum(i, prefix.shape[1] - 1), axis=1)  # [B]
            only = jnp.where((i < prefix.shape[1]) & (given != pad), given, only)
        only = jnp.where(at_limit, eos, only)  # [B]
        best, parent, token = best_candidates(
            s.log_probs, log_p, candidates, never=(pad, bos), eos=eos, only=only,
            no_eos=None if shortest is None else i + 1 < shortest,
        )  # fmt: skip
        tokens = jnp.take_along_axis(s.tokens, parent[..., None], axis=1)  # [B, 2K, T]
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, token, i, axis=2)
        paths = jnp.take_along_axis(s.paths, parent[..., None], axis=1)  # [B, 2K, T]
        paths = jax.lax.dynamic_update_index_in_dim(paths, best, i, axis=2)

        ends = token == eos
        rank = jnp.arange(ends.shape[1])
        finishes = ends & (rank < beam) & ~s.done[:, None] & jnp.isfinite(best)
        score = jnp.where(finishes, best / penalty(i + 1), -jnp.inf)
        new = Hypotheses(tokens, score, best, jnp.full_like(token, i + 1), paths)
        finished = _best_of(s.finished, new, beam)

        live, kept = jax.lax.top_k(jnp.where(ends, -jnp.inf, best), beam)  # [B, K]
        parent = jnp.take_along_axis(parent, kept, axis=1)
        tokens = jnp.take_along_axis(tokens, kept[..., None], axis=1)
        paths = jnp.take_along_axis(paths, kept[..., None], axis=1)
        if beam > 1:
            cache = reorder(cache, parent)

        worst = finished.scores[:, -1]
        done = live[:, 0] / penalty(limits) <= worst
        if beam == 1 or stopping == "first_k":
            done = done | jnp.isfinite(worst)
        return _State(i + 1, tokens, paths, live, cache, finished, s.done | done)

    def going(s: _State) -> Array:
        return ~jnp.all(s.done) & (s.position < length)

    return jax.lax.while_loop(going, advance, start).finished


def _best_of(old: Hypotheses, new: Hypotheses, beam: int) -> Hypotheses:
    """The `beam` best scored of both; earlier ones first on ties."""
    both = jax.tree.map(lambda a, b: jnp.concatenate([a, b], axis=1), old, new)
    scores, kept = jax.lax.top_k(both.scores, beam)
    return Hypotheses(
        jnp.take_along_axis(both.tokens, kept[..., None], axis=1),
        scores,
        jnp.take_along_axis(both.log_probs, kept, axis=1),
        jnp.take_along_axis(both.lengths, kept, axis=1),
        jnp.take_along_axis(both.paths, kept[..., None], axis=1),
    )
