"""Beam search over a `step(tokens, position, cache) → log-probabilities` function.

The shape of every value stands behind it: B sentences, K hypotheses each, T positions, V tokens.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from nmt_ls.decoding.candidates import Reduced, best_candidates, log_probabilities
from nmt_ls.decoding.repetition import repeats

Step = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(tokens `[B, K]`, position, cache) → (log-probabilities `[B, K, V]`, `Unnormalised` or `Reduced`,
cache)."""


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


@dataclasses.dataclass(frozen=True)
class Variety:
    """What keeps hypotheses from being alike, and from repeating themselves."""

    groups: int = 1
    """Groups of hypotheses that are searched one after the other at each step (Vijayakumar et al.
    2018); the beam is split evenly."""
    no_repeat: int = 0
    """n: no n-gram comes twice in a hypothesis; 0 allows all."""


_ALIKE = Variety()


class _Group(NamedTuple):
    """A group of k hypotheses of each sentence; all of them where there is one group."""

    tokens: Int[Array, "B k T"]
    paths: Float[Array, "B k T"]
    log_probs: Float[Array, "B k"]
    finished: Hypotheses
    done: Bool[Array, "B"]


class _State(NamedTuple):
    position: Int[Array, ""]
    groups: tuple[_Group, ...]
    cache: Any


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
    variety: Variety = _ALIKE,
    diversity: ArrayLike = 0.0,
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
      variety: groups of hypotheses, and n-grams that may not come twice; tokens of a `prefix` may.
      diversity: what a token costs a group for each hypothesis of earlier groups that has just
        taken it, nats. It decides which tokens are taken; no score contains it.
      stopping: "bound": a sentence is done when no live hypothesis can still beat its worst
        finished one, which is exact because the penalty grows with length. "first_k": when `beam`
        hypotheses have finished (CTranslate2, and fairseq's default).
      shortest: fewest tokens of each sentence's output, end-of-sentence included.
      prefix: tokens that each output begins with, then padding; they count in its log p.
    """
    batch, few = limits.shape[0], beam // variety.groups
    empty = jnp.full((batch, few, length), pad, jnp.int32)
    never = jnp.full((batch, few), -jnp.inf)
    start = _Group(
        tokens=empty,
        paths=jnp.zeros(empty.shape),
        # All hypotheses start equal, so only the first may count.
        log_probs=jnp.where(jnp.arange(few) == 0, 0.0, -jnp.inf) * jnp.ones((batch, 1)),
        finished=Hypotheses(
            empty, never, never, jnp.zeros((batch, few), jnp.int32), jnp.zeros(empty.shape)
        ),
        done=jnp.zeros(batch, bool),
    )

    def token_before(group: _Group, i: Array) -> Int[Array, "B k"]:
        found = jax.lax.dynamic_index_in_dim(group.tokens, jnp.maximum(i - 1, 0), 2, keepdims=False)
        return jnp.where(i == 0, bos, found)

    def grown(group: _Group, i: Array, log_p, only, costs) -> tuple[_Group, Array, Array | None]:
        """The group with a token more, the hypotheses `[B, k]` that its own descend from, and how
        often each token `[B, V]` was taken, by those that end here too."""
        chosen = log_p if costs is None else log_p - costs[:, None]
        best, parent, token = best_candidates(
            group.log_probs, chosen, 2 * few, never=(pad, bos), eos=eos, only=only,
            no_eos=None if shortest is None else i + 1 < shortest,
        )  # fmt: skip
        total = best  # [B, 2k], what it costs to be alike left out
        if costs is not None:
            total = best + jnp.take_along_axis(costs, token, axis=1)
        tokens = jnp.take_along_axis(group.tokens, parent[..., None], axis=1)  # [B, 2k, T]
        tokens = jax.lax.dynamic_update_index_in_dim(tokens, token, i, axis=2)
        paths = jnp.take_along_axis(group.paths, parent[..., None], axis=1)  # [B, 2k, T]
        paths = jax.lax.dynamic_update_index_in_dim(paths, total, i, axis=2)

        ends = token == eos
        rank = jnp.arange(ends.shape[1])
        finishes = ends & (rank < few) & ~group.done[:, None] & jnp.isfinite(total)
        score = jnp.where(finishes, total / penalty(i + 1), -jnp.inf)
        new = Hypotheses(tokens, score, total, jnp.full_like(token, i + 1), paths)
        finished = _best_of(group.finished, new, few)

        live, kept = jax.lax.top_k(jnp.where(ends, -jnp.inf, best), few)  # [B, k]
        if costs is not None:
            live = jnp.where(jnp.isfinite(live), jnp.take_along_axis(total, kept, axis=1), live)
        parent = jnp.take_along_axis(parent, kept, axis=1)
        tokens = jnp.take_along_axis(tokens, kept[..., None], axis=1)
        paths = jnp.take_along_axis(paths, kept[..., None], axis=1)

        worst = finished.scores[:, -1]
        done = jnp.max(live, axis=1) / penalty(limits) <= worst
        if few == 1 or stopping == "first_k":
            done = done | jnp.isfinite(worst)
        count = None
        if variety.groups > 1:
            taken = jax.lax.dynamic_index_in_dim(tokens, i, axis=2, keepdims=False)
            ended = jnp.sum(finishes, axis=1).astype(jnp.float32)
            count = times_taken(taken, log_p.shape[-1]).at[:, eos].add(ended)
        return _Group(tokens, paths, live, finished, group.done | done), parent, count

    def advance(s: _State) -> _State:
        i = s.position
        last = jnp.concatenate([token_before(group, i) for group in s.groups], axis=1)
        log_p, cache = step(last, i, s.cache)  # [B, K, V]
        at_limit = i + 1 >= limits  # [B]
        only = jnp.full(batch, -1)
        if prefix is not None and prefix.shape[1]:
            given = jnp.take(prefix, jnp.minimum(i, prefix.shape[1] - 1), axis=1)  # [B]
            only = jnp.where((i < prefix.shape[1]) & (given != pad), given, only)
        only = jnp.where(at_limit, eos, only)  # [B]
        free = (only < 0)[:, None]
        if variety != _ALIKE:
            log_p = log_probabilities(log_p)
        if variety.no_repeat:
            tokens = jnp.concatenate([group.tokens for group in s.groups], axis=1)
            vocab = jax.tree.leaves(log_p)[0].shape[-1]
            again = repeats(tokens, i, variety.no_repeat, vocab) & free[..., None]
            log_p = jax.tree.map(lambda x: jnp.where(again, -jnp.inf, x), log_p)
        if isinstance(log_p, Reduced):
            ids = jnp.arange(log_p.log_p.shape[-1])
            banned = ((ids == pad) | (ids == bos))[None, None]  # [1, 1, V]
            if shortest is not None:
                banned = banned | ((ids == eos) & (i + 1 < shortest)[:, None, None])
            log_p = log_p.with_a_way_on(banned, only >= 0)
        groups: list[_Group] = []
        parents: list[Array] = []
        counts: list[Any] = []
        for g, group in enumerate(s.groups):
            part = jax.tree.map(lambda x, g=g: x[:, g * few : (g + 1) * few], log_p)
            costs = jnp.where(free, diversity * sum(counts), 0) if g else None
            new, parent, count = grown(group, i, part, only, costs)
            counts.append(count)
            groups.append(new)
            parents.append(g * few + parent)
        if beam > 1:
            cache = reorder(cache, jnp.concatenate(parents, axis=1))
        return _State(i + 1, tuple(groups), cache)

    def going(s: _State) -> Array:
        done = jnp.stack([group.done for group in s.groups])
        return ~jnp.all(done) & (s.position < length)

    begin = _State(jnp.zeros((), jnp.int32), (start,) * variety.groups, cache)
    end = jax.lax.while_loop(going, advance, begin)
    first, *others = (group.finished for group in end.groups)
    for other in others:
        first = _best_of(first, other, first.scores.shape[1] + few)
    return first


def times_taken(tokens: Int[Array, "B N"], vocab_size: int) -> Float[Array, "B V"]:
    """How often each token is among these."""
    rows = jnp.arange(len(tokens))[:, None]
    return jnp.zeros((len(tokens), vocab_size)).at[rows, tokens].add(1)


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
