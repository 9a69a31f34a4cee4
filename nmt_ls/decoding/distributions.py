"""What happens to a model's distribution before search or sampling sees it.

In this order: un-mixing, temperature, then what is cut off (top-k, nucleus, ε). A model trained
with label smoothing predicts nearly a mixture q = (1−δ)·p + δ·u of what it believes and the prior
that received ε; taking δ·u off again gives p back.
"""

import dataclasses
from typing import Literal

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float

LIKELIHOOD_FLOOR = 0.01
"""Share of q that a token keeps in likelihoods, so that no gold token gets probability 0."""


def unmixed(
    log_q: Float[Array, "... V"],
    mass: ArrayLike,
    *,
    purpose: Literal["search", "likelihood"] = "search",
) -> Float[Array, "... V"]:
    """log of max(q − mass, floor·q), renormalised: q without the mixture term `mass` = δ·u.

    Liang et al. 2022 (arXiv 2205.00659) take a constant off before beam search; here it is the
    mixture term of any prior.

    Args:
      log_q: log-probabilities.
      mass: δ·u, a number (uniform u: δ/V) or `[V]`; 0 changes nothing.
      purpose: "search" has floor 0, a token at or under its share of the mixture is ruled out
        (−inf), unless that would leave none; "likelihood" has floor 0.01.
    """
    mass = jnp.asarray(mass, log_q.dtype)
    # log(q − m) = log q + log1p(−m/q), exact also where q is near its floor or near 1.
    # 1/q may overflow; a token without a share keeps all it has.
    left = jnp.where(mass == 0, 1, 1 - mass * jnp.exp(-log_q))
    floor = 0.0 if purpose == "search" else LIKELIHOOD_FLOOR
    # A token of probability 0 has none to give: 0·inf above is not asked for then.
    left = jnp.where(jnp.isfinite(log_q), jnp.maximum(left, floor), 0)
    none_left = jnp.all(left <= 0, axis=-1, keepdims=True)
    left = jnp.where(none_left, 1, left)
    kept = left > 0
    reduced = jnp.where(kept, log_q + jnp.log(jnp.where(kept, left, 1)), -jnp.inf)
    return jnp.where(jnp.all(mass == 0), log_q, jax.nn.log_softmax(reduced, axis=-1))


def with_temperature(log_p: Float[Array, "... V"], temperature: ArrayLike) -> Float[Array, "... V"]:
    """log of p^(1/temperature), renormalised; below 1 sharper, above 1 flatter."""
    return jax.nn.log_softmax(log_p / jnp.asarray(temperature, log_p.dtype), axis=-1)


@dataclasses.dataclass(frozen=True)
class Cut:
    """Which tokens sampling may draw; the rest are renormalised.

    top_k: the k most probable (Fan et al. 2018); 0 is all. top_p: the fewest whose probabilities
    reach p (nucleus, Holtzman et al. 2020). epsilon: those of at least this probability, and the
    most probable always (ε-sampling, Hewitt et al. 2022, Freitag et al. 2023).
    """

    top_k: int = 0
    top_p: float = 1.0
    epsilon: float = 0.0

    def __post_init__(self) -> None:
        if self.top_k < 0:
            raise ValueError(f"top_k={self.top_k}: at least 0")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p={self.top_p}: above 0 and at most 1")
        if not 0 <= self.epsilon < 1:
            raise ValueError(f"epsilon={self.epsilon}: at least 0 and under 1")

    def __call__(self, log_p: Float[Array, "... V"]) -> Float[Array, "... V"]:
        """The distribution with −inf for what is cut off."""
        if self == Cut():
            return log_p
        kept = jnp.ones(log_p.shape, bool)
        best = jnp.max(log_p, axis=-1, keepdims=True)
        if self.top_k and self.top_k < log_p.shape[-1]:
            worst = jax.lax.top_k(log_p, self.top_k)[0][..., -1:]
            kept &= log_p >= worst
        if self.top_p < 1:
            descending = -jnp.sort(-log_p, axis=-1)
            before = jnp.cumsum(jnp.exp(descending), axis=-1) - jnp.exp(descending)
            # The last token that is needed to reach p is the least probable one that is kept.
            inside = jnp.where(before < self.top_p, descending, jnp.inf)
            kept &= log_p >= jnp.min(inside, axis=-1, keepdims=True)
        if self.epsilon:
            kept &= jnp.exp(log_p) >= self.epsilon
        kept |= log_p >= best
        return jax.nn.log_softmax(jnp.where(kept, log_p, -jnp.inf), axis=-1)
