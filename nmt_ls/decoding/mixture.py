"""What label smoothing put into a model's distribution: the mixture term that un-mixing takes off.

The optimum of the smoothed loss is q = (1−δ)·p + δ·u: for targets included exactly δ = ε and u the
prior; for a uniform prior that leaves the target out, δ·u is ε/(V−1) on every class.
"""

import numpy as np
from jaxtyping import Float

from nmt_ls.config import DecodingConfig, LossConfig
from nmt_ls.errors import UserError
from nmt_ls.losses import convention, uniform_prior


def last_smoothing(loss: LossConfig) -> float:
    """ε at the end of training."""
    return loss.label_smoothing if loss.schedule == "constant" else loss.final_label_smoothing


def exact_mass(
    loss: LossConfig, vocab_size: int, pad: int, prior: Float[np.ndarray, "V"] | None = None
) -> Float[np.ndarray, "V"]:
    """δ·u of a run, from its loss.

    Args:
      loss: its settings.
      vocab_size, pad: of the target side.
      prior: the run's own prior, where `loss.prior` is not uniform.

    Raises:
      UserError: the loss makes no mixture of one prior; δ must be given then.
    """
    why = _no_mixture(loss)
    if why:
        raise UserError(
            f"decoding.unmix=exact: {why} makes no mixture with one prior; fit δ on validation "
            "text and give it with decoding.unmix=given and decoding.unmix_mass"
        )
    options = convention(loss.convention, vocab_size, pad)
    u = prior_of(loss, vocab_size, pad, prior)
    epsilon = last_smoothing(loss)
    if options.get("exclude_target"):
        # Uniform over n classes, the target not among them: ε/(n−1) on each of the others.
        classes = int(np.count_nonzero(u))
        return (u > 0) * (epsilon / max(classes - 1, 1))
    return epsilon * u


def mass_of(
    decoding: DecodingConfig,
    loss: LossConfig,
    vocab_size: int,
    pad: int,
    prior: Float[np.ndarray, "V"] | None = None,
) -> Float[np.ndarray, "V"] | None:
    """δ·u that the decoding settings ask to take off; None for nothing."""
    if decoding.unmix == "none":
        return None
    if decoding.unmix == "exact":
        return exact_mass(loss, vocab_size, pad, prior).astype(np.float32)
    return (decoding.unmix_mass * prior_of(loss, vocab_size, pad, prior)).astype(np.float32)


def prior_of(
    loss: LossConfig, vocab_size: int, pad: int, prior: Float[np.ndarray, "V"] | None
) -> Float[np.ndarray, "V"]:
    """u: who received ε, normalised; `prior` is the run's own, None the convention's."""
    if prior is None:
        excluded = [pad] if loss.convention == "joeynmt" and vocab_size > 1 else []
        prior = uniform_prior(vocab_size, exclude=excluded)
    return np.asarray(prior, np.float64) / np.sum(prior, dtype=np.float64)


def _no_mixture(loss: LossConfig) -> str:
    if loss.kind != "label_smoothing":
        return f"loss.kind={loss.kind}"
    if loss.graduated != "none":
        return f"loss.graduated={loss.graduated}"
    if loss.class_weight_power:
        return f"loss.class_weight_power={loss.class_weight_power:g}"
    if loss.prior != "uniform" and "exclude_target" in convention(loss.convention, 3, 0):
        return f"loss.prior={loss.prior} with loss.convention={loss.convention}"
    return ""
