"""The best next tokens of a sentence's hypotheses, without sorting a vocabulary.

The shape of every value stands behind it: B sentences, K hypotheses each, V tokens.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

_GROUP = 64
"""Tokens of a group. Of n candidates each is in one of the n groups with the largest maxima."""


class Unnormalised(NamedTuple):
    """A distribution as logits: log p = logits − logsumexp, which nobody needs of every token."""

    logits: Float[Array, "B K V"]


def log_probabilities(following: Any) -> Float[Array, "B K V"]:
    """Of every token, also where they come as logits."""
    return (
        jax.nn.log_softmax(following.logits) if isinstance(following, Unnormalised) else following
    )


class Reduced(NamedTuple):
    """An un-mixed distribution, and what it is where a token must come that it rules out."""

    log_p: Float[Array, "B K V"]
    """−inf for what is ruled out."""
    floored: Float[Array, "B K V"]
    """Finite for all: un-mixed as likelihoods are."""

    def with_a_way_on(
        self, banned: Bool[Array, "#B #K V"], forced: Bool[Array, "B"]
    ) -> Float[Array, "B K V"]:
        """`log_p`, or `floored` where the next token is given or nothing else is left.

        Args:
          banned: tokens that may not come next.
          forced: sentences whose next token is given.
        """
        left = jnp.any(jnp.isfinite(self.log_p) & ~banned, axis=-1)  # [B, K]
        return jnp.where((left & ~forced[:, None])[..., None], self.log_p, self.floored)


class Candidates(NamedTuple):
    """Continuations of a sentence's hypotheses, best first; on ties in the order of (k, token)."""

    scores: Float[Array, "B N"]
    """log p of hypothesis and token; −inf for none."""
    parents: Int[Array, "B N"]
    """Which of the K hypotheses."""
    tokens: Int[Array, "B N"]


def best_candidates(
    scores: Float[Array, "B K"],
    following: Float[Array, "B K V"] | Unnormalised,
    count: int,
    *,
    never: tuple[int, ...],
    eos: int,
    no_eos: Bool[Array, "B"] | None,
    only: Int[Array, "B"],
) -> Candidates:
    """The `count` best of all hypotheses' continuations.

    Args:
      scores: log p of the hypotheses so far.
      following: log-probabilities of the next token, or logits.
      count: N; what is beyond K·V has score −inf.
      never: tokens that no hypothesis continues with.
      eos: end-of-sentence.
      no_eos: sentences that may not end yet; None for no such thing.
      only: the one token that a sentence must continue with, or −1.
    """
    values = following.logits if isinstance(following, Unnormalised) else following
    batch, beam, vocab = values.shape
    groups = -(-vocab // _GROUP)
    grouped = values
    if groups * _GROUP > vocab:
        beyond = [(0, 0), (0, 0), (0, groups * _GROUP - vocab)]
        grouped = jnp.pad(values, beyond, constant_values=-jnp.inf)
    grouped = grouped.reshape(batch, beam, groups, _GROUP)
    maxima = jnp.max(grouped, axis=-1)  # [B, K, groups]
    if isinstance(following, Unnormalised):
        largest = jnp.max(maxima, axis=-1)
        total = jnp.sum(jnp.exp(values - largest[..., None]), axis=-1)
        scores = scores - (largest + jnp.log(total))

    def allowed(values, tokens):  # [B, …] both
        banned = jnp.zeros(tokens.shape, bool)
        for token in never:
            banned |= tokens == token
        if no_eos is not None:
            early = no_eos.reshape(-1, *(1 for _ in values.shape[1:]))
            banned = banned | (early & (tokens == eos))
        return jnp.where(banned, -jnp.inf, values)

    # Banned tokens are looked at by group, so that no vocabulary with the bans in it is written.
    for group in sorted({token // _GROUP for token in (*never, eos)}):
        tokens = group * _GROUP + jnp.arange(_GROUP)
        anew = jnp.max(allowed(grouped[:, :, group], tokens), axis=-1)
        maxima = maxima.at[:, :, group].set(anew)

    found = _best(scores, grouped, maxima, count, allowed)
    found = found._replace(tokens=jnp.minimum(found.tokens, vocab - 1))

    # One token a hypothesis: K candidates.
    given = jnp.maximum(only, 0)[:, None, None]
    log_p = jnp.take_along_axis(values, jnp.broadcast_to(given, (batch, beam, 1)), axis=2)[..., 0]
    missing = [(0, 0), (0, max(0, count - beam))]
    forced = jnp.pad(scores + log_p, missing, constant_values=-jnp.inf)[:, :count]
    forced, order = jax.lax.top_k(forced, count)
    alone = Candidates(
        forced,
        jnp.minimum(order, beam - 1),
        jnp.broadcast_to(given[..., 0], order.shape).astype(found.tokens.dtype),
    )
    return jax.tree.map(lambda a, b: jnp.where(only[:, None] >= 0, a, b), alone, found)


def _best(
    scores: Float[Array, "B K"],
    grouped: Float[Array, "B K groups group"],
    maxima: Float[Array, "B K groups"],
    count: int,
    allowed: Callable[[Array, Array], Array],
) -> Candidates:
    """Groups first: the maximum of a group costs less than a place in a sorted list.

    What fills up the last group has score −inf, and a token beyond the vocabulary.
    """
    batch, beam, groups = maxima.shape
    of_group = jnp.repeat(scores, groups, axis=1)  # [B, K·groups]
    whole = maxima.reshape(batch, -1) + of_group
    _, chosen = jax.lax.top_k(whole, min(count, beam * groups))
    chosen = jnp.sort(chosen, axis=1)  # in the order of the vocabulary, for ties
    inside = jnp.take_along_axis(grouped.reshape(batch, -1, _GROUP), chosen[..., None], axis=1)
    tokens = (chosen % groups * _GROUP)[..., None] + jnp.arange(_GROUP)  # [B, N, group]
    inside = allowed(inside, tokens) + jnp.take_along_axis(of_group, chosen, axis=1)[..., None]
    best, flat = jax.lax.top_k(inside.reshape(batch, -1), min(count, tokens[0].size))
    parents = jnp.take_along_axis(chosen // groups, flat // _GROUP, axis=1)
    tokens = jnp.take_along_axis(tokens.reshape(batch, -1), flat, axis=1)
    missing = [(0, 0), (0, count - best.shape[1])]
    best = jnp.pad(best, missing, constant_values=-jnp.inf)
    return Candidates(best, jnp.pad(parents, missing), jnp.pad(tokens, missing))
