"""The smoothed target: q = on_target·[label] + share·u, with u the prior that receives ε.

    target included:  on_target = 1−ε             share = ε            Szegedy et al. 2016
    target excluded:  on_target = 1−ε−share·u_y   share = ε/(1−u_y)    fairseq, tensor2tensor, T5X

so that q has mass 1 − ε (excluded) or 1 − ε + ε·u_y (included) on the label y. One formula then
serves every convention: −Σ q log p = log Z − on_target·l_y − share·(u·l).
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float


class SmoothedTarget(NamedTuple):
    """The target distribution of each row; everything is differentiable in ε."""

    on_target: Float[Array, "..."]
    share: Float[Array, "..."]
    entropy: Float[Array, "..."] | None
    """H(q) in nats, where the loss subtracts it."""


def smoothed_target(
    epsilon: Float[Array, "..."],
    prior: Float[Array, "... V"] | None,
    prior_at_label: Float[Array, "..."],
    vocab_size: int,
    *,
    exclude_target: bool,
    subtract_entropy: bool,
) -> SmoothedTarget:
    """The target of each row from its ε.

    Args:
      epsilon: ε of each row.
      prior: normalised weights that broadcast to the rows' classes; None is uniform.
      prior_at_label: u_y, the prior at each row's label.
      vocab_size: V.
      exclude_target: spread ε over the other classes only.
      subtract_entropy: compute H(q) as well.
    """
    if vocab_size == 1:
        # Said here, or 1 − (1−ε) − ε would leave its rounding error in the gradient.
        share, on_target = jnp.zeros_like(epsilon), jnp.ones_like(epsilon)
    elif exclude_target:
        # With no class left to receive it, the mass stays on the target.
        others = 1 - prior_at_label
        share = jnp.where(others > 0, epsilon / jnp.where(others > 0, others, 1), 0)
        on_target = jnp.where(others > 0, 1 - epsilon, 1) - share * prior_at_label
    else:
        share, on_target = epsilon, 1 - epsilon
    entropy = None
    if subtract_entropy:
        # Σ_v xlogx(share·u_v) = share·Σ u log u + xlogx(share)·Σ u, then the target's own term.
        if prior is None:
            u_log_u = -jnp.log(jnp.asarray(float(vocab_size), share.dtype))
        else:
            u_log_u = jnp.sum(_xlogx(prior), axis=-1)
        at_label = share * prior_at_label
        everywhere = share * u_log_u + _xlogx(share)
        entropy = -(everywhere - _xlogx(at_label) + _xlogx(on_target + at_label))
    return SmoothedTarget(on_target, share, entropy)


def _xlogx(x):
    """x·log x, with 0·log 0 = 0."""
    positive = x > 0
    return jnp.where(positive, x * jnp.log(jnp.where(positive, x, 1)), 0)


def cross_entropy_of_rows(target: SmoothedTarget, log_sum, gold, spread, log_z, z_loss):
    """The loss of each row; all logits relative to the row's maximum, but for `log_z`.

    Args:
      target: see there.
      log_sum: log Σ exp s.
      gold: s_y.
      spread: u·s.
      log_z: logsumexp of the logits themselves, for `z_loss`.
      z_loss: a constant; None for none.
    """
    loss = log_sum - times(target.on_target, gold) - times(target.share, spread)
    if target.entropy is not None:
        loss = loss - target.entropy
    if z_loss is not None:
        loss = loss + z_loss * log_z**2
    return loss


def times(weight, value):
    """weight·value, 0 where the weight is 0 and the value infinite; ∂/∂weight stays exact."""
    return weight * jnp.where((weight == 0) & ~jnp.isfinite(value), 0, value)
