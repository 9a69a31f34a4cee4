"""No n-gram twice: tokens that would repeat one are left out (Paulus et al. 2018, §2.5)."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Int


def repeats(
    tokens: Int[Array, "B K T"], position: Int[Array, "B"], size: int, vocab_size: int
) -> Bool[Array, "B K V"]:
    """Tokens that would make the last n tokens of a hypothesis an n-gram that it has already.

    Args:
      tokens: hypotheses; those before `position` are real.
      position: of each sentence's token to come, from 0.
      size: n, at least 1.
      vocab_size: V.
    """
    batch, beam, length = tokens.shape
    if size > length:
        return jnp.zeros((batch, beam, vocab_size), bool)
    windows = length - size + 1
    starts = jnp.arange(windows)
    # Windows that end before the token to come; their first n−1 tokens against the last n−1.
    at_end = position[:, None, None]
    same = jnp.broadcast_to(starts + size <= at_end, (batch, beam, windows))
    for offset in range(size - 1):
        at = jnp.maximum(at_end - (size - 1) + offset, 0)
        last = jnp.take_along_axis(tokens, at, axis=2)  # [B, K, 1]
        same = same & (tokens[..., offset : offset + windows] == last)
    follows = jnp.where(same, tokens[..., size - 1 :], vocab_size)  # beyond V: nowhere
    rows, columns = jnp.arange(batch)[:, None, None], jnp.arange(beam)[:, None]
    found = jnp.zeros((batch, beam, vocab_size + 1), bool)
    return found.at[rows, columns, follows].set(True)[..., :vocab_size]
