"""Dropout as a function of (key, rate), with the rate a traced number."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, UInt


class DropoutRates(NamedTuple):
    """The three rates. Numbers or traced scalars: data, so that changing one compiles nothing."""

    residual: ArrayLike = 0.0
    attention: ArrayLike = 0.0
    activation: ArrayLike = 0.0


_GOLDEN = 0x9E3779B9


def _mixed(x: UInt[Array, "..."]) -> UInt[Array, "..."]:
    """lowbias32 by C. Wellons: one-to-one, each bit of the result hangs on all of the argument."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def site_key(key: Array, site: int) -> Array:
    """The key of a place in the model. Threefry's `fold_in` is a loop, compiled for each place."""
    words = jax.random.key_data(key).astype(jnp.uint32)
    words = _mixed(_mixed(words + jnp.uint32(site * _GOLDEN & 0xFFFFFFFF)) ^ words[::-1])
    return jax.random.wrap_key_data(words, impl="threefry2x32")


def random_words(key: Array, shape: tuple[int, ...], part: ArrayLike = 0) -> UInt[Array, "..."]:
    """32 random bits per element: a hash of (key, the element's index).

    One sixth of threefry's time on CPU, where threefry's masks took 7 % of a training step. The
    key is threefry's; being an elementwise function of (key, index), the same bits come out under
    `vmap` as alone, which XLA's own generator (`rbg`) does not give.

    Args:
      key: of two words.
      shape: of the result.
      part: its number among arrays of this shape; together they have the bits of one array that
        is as long as all of them.
    """
    words = jax.random.key_data(key).astype(jnp.uint32)
    size = 1
    for n in shape:
        size *= n
    first = jnp.asarray(part).astype(jnp.uint32) * jnp.uint32(size % 2**32)
    x = (jax.lax.iota(jnp.uint32, size) + first).reshape(shape) * jnp.uint32(_GOLDEN) ^ words[0]
    x = (x ^ (x >> 16)) * jnp.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) + words[1]
    x = x * jnp.uint32(0x846CA68B)
    return x ^ (x >> 16)


def drop(
    x: Float[Array, "..."], key: Array, rate: ArrayLike, part: ArrayLike = 0
) -> Float[Array, "..."]:
    """Zero each element with probability `rate` and divide the others by 1 − rate.

    `part`: as of `random_words`.
    """
    rate = jnp.asarray(rate, jnp.float32)
    threshold = (rate * jnp.float32(2**32)).astype(jnp.uint32)
    keep = random_words(key, x.shape, part) >= threshold
    return jnp.where(keep, x * (1 / (1 - rate)).astype(x.dtype), 0)


class Dropout:
    """The dropout of one forward pass: each call site gets the next key. `key` None drops nothing.

    Sites whose configured rate is 0 are left out of the program (`enabled`), so that a model
    without dropout does not pay for its random bits; a rate that is on may be any traced number.

    A batch that is worked through in equal parts, on several devices or one after the other, has
    the bits that it has as a whole where each pass is told its `part`, counted from 0.
    """

    def __init__(
        self,
        key: Array | None = None,
        rates: DropoutRates = DropoutRates(),
        enabled: tuple[bool, bool, bool] = (True, True, True),
        part: ArrayLike = 0,
    ):
        self.key, self.rates, self.enabled, self.part = key, rates, enabled, part
        self.sites = 0

    def _next(self, x, kind: int):
        self.sites += 1
        if self.key is None or not self.enabled[kind]:
            return x
        return drop(x, site_key(self.key, self.sites), self.rates[kind], self.part)

    def residual(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """On embeddings and on what a block adds to the residual stream."""
        return self._next(x, 0)

    def attention(self, weights: Float[Array, "..."]) -> Float[Array, "..."]:
        """On attention weights."""
        return self._next(weights, 1)

    def activation(self, x: Float[Array, "..."]) -> Float[Array, "..."]:
        """Inside the feed-forward blocks."""
        return self._next(x, 2)

    @property
    def drops_attention(self) -> bool:
        """Whether attention weights are dropped, which only the explicit path can do."""
        return self.key is not None and self.enabled[1]
