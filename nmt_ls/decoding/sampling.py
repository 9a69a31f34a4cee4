"""Sampling from a `step(tokens, position, cache) → log-probabilities` function.

The shape of every value stands behind it: B sentences, K samples each, T positions, V tokens.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from nmt_ls.decoding.beam import Hypotheses, Step
from nmt_ls.decoding.candidates import Reduced
from nmt_ls.decoding.distributions import Cut


class _State(NamedTuple):
    position: Int[Array, ""]
    tokens: Int[Array, "B K T"]
    paths: Float[Array, "B K T"]
    log_probs: Float[Array, "B K"]
    lengths: Int[Array, "B K"]
    cache: Any
    done: Array


def sample(
    step: Step,
    cache: Any,
    limits: Int[Array, "B"],
    sentences: Int[Array, "B"],
    seed: Array,
    *,
    samples: int,
    length: int,
    cut: Cut,
    bos: int,
    eos: int,
    pad: int,
) -> Hypotheses:
    """Independent draws, token by token, in the order they were drawn. Traceable; fixed shapes.

    A draw is a function of (seed, sentence, number of the sample, position) alone: neither the
    batch that a sentence is in nor how many samples are drawn changes it.

    Args:
      step: gives normalised log-probabilities, or `Reduced` ones, temperature and all, before
        anything is cut off.
      cache: leaves `[B·K, …]`.
      limits: longest output of each sentence, end-of-sentence included; it is forced there.
      sentences: number of each sentence in the text.
      seed: of all draws.
      samples: K.
      length: T, at least the largest limit.
      cut: which tokens may be drawn.

    Returns:
      scores and log_probs are log p of what was drawn, by `step`'s distribution before the cut.
    """
    batch = limits.shape[0]
    keys = _keys(seed, sentences, samples)  # [B, K]
    start = _State(
        position=jnp.zeros((), jnp.int32),
        tokens=jnp.full((batch, samples, length), pad, jnp.int32),
        paths=jnp.zeros((batch, samples, length)),
        log_probs=jnp.zeros((batch, samples)),
        lengths=jnp.zeros((batch, samples), jnp.int32),
        cache=cache,
        done=jnp.zeros((batch, samples), bool),
    )

    def advance(s: _State) -> _State:
        i = s.position
        before = jax.lax.dynamic_index_in_dim(s.tokens, jnp.maximum(i - 1, 0), 2, keepdims=False)
        last = jnp.where(i == 0, bos, before)  # [B, K]
        log_p, cache = step(last, jnp.full(batch, i), s.cache)  # [B, K, V]
        ids = jnp.arange(jax.tree.leaves(log_p)[0].shape[-1])
        at_limit = i + 1 >= limits  # [B]
        banned = (ids == pad) | (ids == bos) | (at_limit[:, None, None] & (ids != eos))  # [B, 1, V]
        if isinstance(log_p, Reduced):
            log_p = log_p.with_a_way_on(banned, at_limit)
        allowed = cut(jnp.where(banned, -jnp.inf, log_p))
        noise = jax.vmap(jax.vmap(lambda k: jax.random.gumbel(k, ids.shape)))(
            jax.vmap(jax.vmap(lambda k: jax.random.fold_in(k, i)))(keys)
        )
        token = jnp.argmax(allowed + noise, axis=-1)  # [B, K]: Gumbel's maximum is a draw
        gained = jnp.take_along_axis(log_p, token[..., None], axis=-1)[..., 0]
        written = jnp.where(s.done, pad, token)
        log_probs = s.log_probs + jnp.where(s.done, 0, gained)
        path = jnp.where(s.done, 0, log_probs)
        return _State(
            i + 1,
            jax.lax.dynamic_update_index_in_dim(s.tokens, written, i, axis=2),
            jax.lax.dynamic_update_index_in_dim(s.paths, path, i, axis=2),
            log_probs,
            s.lengths + ~s.done,
            cache,
            s.done | (token == eos),
        )

    def going(s: _State) -> Array:
        return ~jnp.all(s.done) & (s.position < length)

    end = jax.lax.while_loop(going, advance, start)
    return Hypotheses(end.tokens, end.log_probs, end.log_probs, end.lengths, end.paths)


def _keys(seed: Array, sentences: Int[Array, "B"], samples: int) -> Array:
    root = jax.random.key(seed, impl="threefry2x32")
    of_sentence = jax.vmap(lambda n: jax.random.fold_in(root, n))(sentences)

    def of_samples(key):
        return jax.vmap(lambda k: jax.random.fold_in(key, k))(jnp.arange(samples))

    return jax.vmap(of_samples)(of_sentence)
