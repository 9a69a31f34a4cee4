"""Beam search over a `step(tokens, position, cache) → log-probabilities` function.

The shape of every value stands behind it: B sentences, K hypotheses each, T positions, V tokens.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from nmt_ls.decoding.candidates import Reduced, best_candidates, log_probabilities
from nmt_ls.decoding.repetition import repeats

Step = Callable[[Any, Any, Any], tuple[Any, Any]]
"""(tokens `[B, K]`, positions `[B]`, cache) → (log-probabilities `[B, K, V]`, `Unnormalised` or
`Reduced`, cache)."""


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


class Asked(NamedTuple):
    """What is asked of each sentence."""

    limits: Int[Array, "B"]
    """Longest output, end-of-sentence included; it is forced there."""
    shortest: Int[Array, "B"] | None = None
    """Fewest tokens of the output, end-of-sentence included."""
    prefix: Int[Array, "B P"] | None = None
    """Tokens that the output begins with, then padding; they count in its log p."""


class Search(NamedTuple):
    """B sentences in search, each at a position of its own."""

    position: Int[Array, "B"]
    """Of the token to come, from 0; 0 when done."""
    groups: tuple[_Group, ...]
    cache: Any

    @property
    def done(self) -> Bool[Array, "B"]:
        return functools.reduce(jnp.logical_and, (group.done for group in self.groups))


def rows_reordered(cache: Any, parents: Int[Array, "B K"]) -> Any:
    """A cache whose leaves are `[B·K, …]`, moved to the hypotheses that descend from `parents`."""
    batch, beam = parents.shape
    rows = (jnp.arange(batch)[:, None] * beam + parents).reshape(-1)  # [B·K]
    return jax.tree.map(lambda x: jnp.take(x, rows, axis=0), cache)


def beam_search(step: Step, cache: Any, asked: Asked, **options: Any) -> Hypotheses:
    """The best hypotheses found for a batch of sentences. Traceable; shapes are fixed.

    Args:
      step: may return log-probabilities that are not normalised over V.
      cache: what `step` reads and fills.
      asked: of each sentence.
      options: the others of `BeamSearch`.
    """
    search = BeamSearch(step, **options)
    begin = search.start(len(asked.limits), cache)
    end = jax.lax.while_loop(lambda s: ~jnp.all(s.done), lambda s: search.advance(s, asked), begin)
    return search.found(end)


@dataclasses.dataclass(frozen=True)
class BeamSearch:
    """Search with `beam` live hypotheses a sentence.

    A hypothesis finishes when end-of-sentence is among the `beam` best of 2·beam candidates
    (fairseq). With beam 1 the first finished one is the answer, which makes it greedy search.
    """

    step: Step
    _: dataclasses.KW_ONLY
    beam: int
    length: int
    """T, at least the largest limit."""
    penalty: LengthPenalty
    bos: int
    eos: int
    pad: int
    reorder: Callable[[Any, Array], Any] = rows_reordered
    """(cache, parents `[B, K]`) → the cache of hypotheses that descend from these."""
    variety: Variety = Variety()
    """Groups of hypotheses, and n-grams that may not come twice; tokens of a prefix may."""
    diversity: ArrayLike = 0.0
    """What a token costs a group for each hypothesis of earlier groups that has just taken it,
    nats. It decides which tokens are taken; no score contains it."""
    stopping: Literal["bound", "first_k"] = "bound"
    """"first_k": a sentence is done when `beam` hypotheses have finished (CTranslate2, and
    fairseq's default). With both it is done when no live hypothesis can still be among its
    `wanted` best, which is exact because the penalty grows with length."""
    wanted: ArrayLike | None = None
    """So many of the best hypotheses are what they would be if search went on; None: all."""

    @property
    def few(self) -> int:
        """k, hypotheses of a group."""
        return self.beam // self.variety.groups

    def start(self, batch: int, cache: Any) -> Search:
        """So many sentences before their first token."""
        empty = jnp.full((batch, self.few, self.length), self.pad, jnp.int32)
        never = jnp.full((batch, self.few), -jnp.inf)
        nothing = jnp.zeros((batch, self.few), jnp.int32)
        group = _Group(
            tokens=empty,
            paths=jnp.zeros(empty.shape),
            # All hypotheses start equal, so only the first may count.
            log_probs=jnp.where(jnp.arange(self.few) == 0, 0.0, -jnp.inf) * jnp.ones((batch, 1)),
            finished=Hypotheses(empty, never, never, nothing, jnp.zeros(empty.shape)),
            done=jnp.zeros(batch, bool),
        )
        return Search(jnp.zeros(batch, jnp.int32), (group,) * self.variety.groups, cache)

    def advance(self, s: Search, asked: Asked) -> Search:
        """A token more for each sentence that is not done."""
        i, few = s.position, self.few
        last = jnp.concatenate([self._token_before(group, i) for group in s.groups], axis=1)
        log_p, cache = self.step(last, i, s.cache)  # [B, K, V]
        only = jnp.full(i.shape, -1)
        if asked.prefix is not None and asked.prefix.shape[1]:
            width = asked.prefix.shape[1]
            given = jnp.take_along_axis(asked.prefix, jnp.minimum(i, width - 1)[:, None], axis=1)
            given = given[:, 0]  # [B]
            only = jnp.where((i < width) & (given != self.pad), given, only)
        only = jnp.where(i + 1 >= asked.limits, self.eos, only)  # [B]
        no_eos = None if asked.shortest is None else i + 1 < asked.shortest
        log_p = self._allowed(log_p, s, only, no_eos)
        free = (only < 0)[:, None]
        groups: list[_Group] = []
        parents: list[Array] = []
        counts: list[Any] = []
        for g, group in enumerate(s.groups):
            part = jax.tree.map(lambda x, g=g: x[:, g * few : (g + 1) * few], log_p)
            costs = jnp.where(free, self.diversity * sum(counts), 0) if g else None
            new, parent, count = self._grown(group, i, part, only, no_eos, asked.limits, costs)
            counts.append(count)
            groups.append(new)
            parents.append(g * few + parent)
        if self.beam > 1:
            cache = self.reorder(cache, jnp.concatenate(parents, axis=1))
        after = Search(i + 1, tuple(groups), cache)
        return after._replace(position=jnp.where(after.done, 0, i + 1))

    def found(self, s: Search) -> Hypotheses:
        """The finished hypotheses of all groups."""
        first, *others = (group.finished for group in s.groups)
        for other in others:
            first = _best_of(first, other, first.scores.shape[1] + self.few)
        return first

    def _token_before(self, group: _Group, i: Int[Array, "B"]) -> Int[Array, "B k"]:
        at = jnp.maximum(i - 1, 0)[:, None, None]
        found = jnp.take_along_axis(group.tokens, at, axis=2)[..., 0]
        return jnp.where(i[:, None] == 0, self.bos, found)

    def _allowed(self, log_p: Any, s: Search, only: Array, no_eos: Array | None) -> Any:
        """Without n-grams that come twice, and un-mixed distributions with a way on."""
        if self.variety != _ALIKE:
            log_p = log_probabilities(log_p)
        vocab = jax.tree.leaves(log_p)[0].shape[-1]
        if self.variety.no_repeat:
            tokens = jnp.concatenate([group.tokens for group in s.groups], axis=1)
            again = repeats(tokens, s.position, self.variety.no_repeat, vocab)
            again = again & (only < 0)[:, None, None]
            log_p = jax.tree.map(lambda x: jnp.where(again, -jnp.inf, x), log_p)
        if isinstance(log_p, Reduced):
            ids = jnp.arange(vocab)
            banned = ((ids == self.pad) | (ids == self.bos))[None, None]  # [1, 1, V]
            if no_eos is not None:
                banned = banned | ((ids == self.eos) & no_eos[:, None, None])
            log_p = log_p.with_a_way_on(banned, only >= 0)
        return log_p

    def _grown(
        self, group: _Group, i: Int[Array, "B"], log_p, only, no_eos, limits, costs
    ) -> tuple[_Group, Array, Array | None]:
        """The group with a token more, the hypotheses `[B, k]` that its own descend from, and how
        often each token `[B, V]` was taken, by those that end here too."""
        few = self.few
        chosen = log_p if costs is None else log_p - costs[:, None]
        best, parent, token = best_candidates(
            group.log_probs, chosen, 2 * few, never=(self.pad, self.bos), eos=self.eos, only=only,
            no_eos=no_eos,
        )  # fmt: skip
        total = best  # [B, 2k], what it costs to be alike left out
        if costs is not None:  # not taken off again, which would round by what they cost
            of_token = parent * log_p.shape[-1] + token
            gained = jnp.take_along_axis(log_p.reshape(len(i), -1), of_token, axis=1)
            total = jnp.take_along_axis(group.log_probs, parent, axis=1) + gained
            total = jnp.where(jnp.isfinite(best), total, -jnp.inf)
        here = jnp.arange(self.length) == i[:, None, None]  # [B, 1, T]
        tokens = jnp.take_along_axis(group.tokens, parent[..., None], axis=1)  # [B, 2k, T]
        tokens = jnp.where(here, token[..., None], tokens)
        paths = jnp.take_along_axis(group.paths, parent[..., None], axis=1)  # [B, 2k, T]
        paths = jnp.where(here, total[..., None], paths)

        ends = token == self.eos
        rank = jnp.arange(ends.shape[1])
        ending = ends & (rank < few) & jnp.isfinite(total)
        finishes = ending & ~group.done[:, None]
        length = (i + 1)[:, None]
        score = jnp.where(finishes, total / self.penalty(length), -jnp.inf)
        new = Hypotheses(tokens, score, total, jnp.broadcast_to(length, token.shape), paths)
        finished = _best_of(group.finished, new, few)

        live, kept = jax.lax.top_k(jnp.where(ends, -jnp.inf, best), few)  # [B, k]
        if costs is not None:
            live = jnp.where(jnp.isfinite(live), jnp.take_along_axis(total, kept, axis=1), live)
        parent = jnp.take_along_axis(parent, kept, axis=1)
        tokens = jnp.take_along_axis(tokens, kept[..., None], axis=1)
        paths = jnp.take_along_axis(paths, kept[..., None], axis=1)

        wanted = jnp.clip(few if self.wanted is None else self.wanted, 1, few)
        sure = jnp.take(finished.scores, wanted - 1, axis=1)
        done = jnp.max(live, axis=1) / self.penalty(limits) <= sure
        done = done | (i + 1 >= limits)  # even where a model gives NaN
        if few == 1 or self.stopping == "first_k":
            done = done | jnp.isfinite(finished.scores[:, -1])
        count = None
        if self.variety.groups > 1:
            # As if it were not done, for when it is depends on how many are wanted.
            ended = jnp.sum(ending, axis=1).astype(jnp.float32)
            going_on = jnp.take_along_axis(token, kept, axis=1)
            count = times_taken(going_on, log_p.shape[-1]).at[:, self.eos].add(ended)
        return _Group(tokens, paths, live, finished, group.done | done), parent, count


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
