"""What a step minimises: the loss of `config.loss` on the hidden states of a batch."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Int

from nmt_ls.config import LossConfig, ModelConfig
from nmt_ls.losses import (
    TokenStatistics,
    class_weighted,
    convention,
    distillation,
    generalized_entropy,
    graduated_smoothing,
    linear_label_smoothed_cross_entropy_sum_with_statistics,
    linear_label_smoothed_cross_entropy_with_statistics,
    linear_loss,
    masked_prior,
    token_statistics,
    unigram_prior,
)
from nmt_ls.model import Params, graph_of, model_of
from nmt_ls.model.transformer import Transformer


class LossData(NamedTuple):
    """What a loss needs besides ε; data of the step, the same on all devices."""

    prior: Float[Array | np.ndarray, "V"] | None = None
    """Who receives ε, where the configuration says so; else the convention's."""
    class_weights: Float[Array | np.ndarray, "V"] | None = None
    teacher: Params | None = None
    """Parameters of the run whose confidences graduate ε, or that is distilled."""


def loss_data(loss: LossConfig, count: Callable[[], Int[np.ndarray, "V"]], pad: int) -> LossData:
    """The prior and the class weights of a configuration.

    Args:
      loss: its settings.
      count: counts how often each token occurs on the target side of the training text; called
        only where that decides something, for it reads the whole text.
      pad: the padding, which receives nothing.
    """
    prior = weights = None
    if loss.prior == "uniform" and not loss.class_weight_power:
        return LossData()
    counts = count()
    if loss.prior == "unigram":
        prior = unigram_prior(counts, temperature=loss.prior_temperature, exclude=[pad])
    elif loss.prior == "masked":
        prior = masked_prior(counts, exclude=[pad])
    if loss.class_weight_power:
        weights = (counts + 1.0) ** -loss.class_weight_power
        weights = (weights * counts.sum() / (weights @ counts)).astype(np.float32)
    return LossData(prior, weights)


def shift_right(target: Int[Array, "B T"], bos: int) -> Int[Array, "B T"]:
    """The decoder's inputs: bos, then the target without its last token."""
    return jnp.concatenate([jnp.full_like(target[:, :1], bos), target[:, :-1]], axis=1)


def real_tokens(target: Int[Array, "B T"], lengths: Int[Array, "B"]) -> Bool[Array, "B T"]:
    """True where a target has a token, end-of-sentence included; False on padding."""
    return jnp.arange(target.shape[1]) < lengths[:, None]


def teacher_forced(
    transformer: Transformer, rows, bos: int
) -> tuple[Float[Array, "B T D"], Bool[Array, "B T"]]:
    """(hidden states before each target token, which tokens are real), without dropout.

    Args:
      transformer: the model.
      rows: source `[B, S]`, source_lengths, target `[B, T]`, target_lengths.
      bos: what the decoder's inputs begin with.
    """
    memory = transformer.encode(rows.source, rows.source_lengths)
    hidden = transformer.decode(memory, shift_right(rows.target, bos))
    return hidden, real_tokens(rows.target, rows.target_lengths)


def likelihood(transformer: Transformer, rows, bos: int) -> TokenStatistics:
    """Statistics of each target token, `[B, T]`, without dropout and without ε; see above."""
    hidden, where = teacher_forced(transformer, rows, bos)
    return _hard_statistics(transformer, hidden, rows.target, where)


def _hard_statistics(transformer: Transformer, hidden, target, where) -> TokenStatistics:
    matrix, bias = transformer.output_matrix()
    # ε is 0: a likelihood never contains the smoothing.
    _, statistics = linear_label_smoothed_cross_entropy_with_statistics(
        hidden, matrix, target, 0.0, bias=bias, where=where, logit_softcap=_softcap(transformer)
    )
    return statistics


def _softcap(transformer: Transformer) -> float | None:
    return transformer.config.logit_softcap or None


def make_objective(
    loss: LossConfig,
    sizes: tuple[int, int],
    bos: int,
    pad: int,
    teacher: ModelConfig | None = None,
):
    """`fn(transformer, hidden, part, strength, data) → (Σ loss, Σ nll)` over a part's real tokens.

    `strength` is ε, or β of the losses that have one. `nll` is that of the hard labels.

    Args:
      loss: settings; `label_smoothing` and `beta` are not read.
      sizes: vocabulary sizes.
      bos, pad: ids.
      teacher: the model whose parameters `data.teacher` are.
    """
    options = convention(loss.convention, sizes[1], pad)
    teacher_graph = graph_of(teacher, *sizes) if teacher is not None else None

    def smoothing_of(transformer, hidden, part, where, epsilon: ArrayLike, data: LossData):
        """ε, of all tokens or of each."""
        if loss.graduated == "none":
            return epsilon
        if loss.graduated == "run":
            assert teacher_graph is not None
            assert data.teacher is not None
            nll = likelihood(model_of(teacher_graph, data.teacher), part, bos).nll
        else:
            # As it is now, dropout and all: one product more.
            still = jax.lax.stop_gradient(hidden)
            nll = _hard_statistics(transformer, still, part.target, where).nll
        return graduated_smoothing(
            nll,
            below=loss.graduated_below,
            above=loss.graduated_above,
            smoothing=(0.0, epsilon, loss.graduated_smoothing),
        )

    def smoothed(transformer, hidden, part, epsilon, data: LossData):
        matrix, bias = transformer.output_matrix()
        where = real_tokens(part.target, part.target_lengths)
        epsilon = smoothing_of(transformer, hidden, part, where, epsilon, data)
        chosen, weights = dict(options), None
        if data.prior is not None:
            chosen["prior"] = data.prior
        if data.class_weights is not None:
            weights, epsilon, chosen["prior"], _ = class_weighted(
                part.target, data.class_weights, epsilon
            )
        total, statistics = linear_label_smoothed_cross_entropy_sum_with_statistics(
            hidden,
            matrix,
            part.target,
            epsilon,
            bias=bias,
            where=where,
            weights=weights,
            z_loss=loss.z_loss,
            logit_softcap=_softcap(transformer),
            **chosen,
        )
        return total, jnp.sum(statistics.nll)

    def regularized(transformer, hidden, part, beta, data: LossData):
        matrix, bias = transformer.output_matrix()
        where = real_tokens(part.target, part.target_lengths)
        alpha = 0.0 if loss.kind == "confidence_penalty" else loss.alpha
        penalised = partial(generalized_entropy, beta=beta, alpha=alpha, prior=data.prior)

        def both(logits, labels, where):
            nll = token_statistics(logits, labels, where).nll
            return penalised(logits, labels, where=where), jax.lax.stop_gradient(nll)

        losses, nll = linear_loss(
            both,
            hidden,
            matrix,
            part.target,
            bias=bias,
            where=where,
            logit_softcap=_softcap(transformer),
        )
        return jnp.sum(losses), jnp.sum(nll)

    def distilled(transformer, hidden, part, beta, data: LossData):
        matrix, bias = transformer.output_matrix()
        where = real_tokens(part.target, part.target_lengths)
        assert teacher_graph is not None
        assert data.teacher is not None
        knowing = model_of(teacher_graph, data.teacher)
        theirs, _ = teacher_forced(knowing, part, bos)

        def both(logits, labels, theirs, where):
            nll = token_statistics(logits, labels, where).nll
            taught = distillation(
                logits, labels, knowing.logits(theirs), beta,
                temperature=loss.teacher_temperature, where=where,
            )  # fmt: skip
            return taught, jax.lax.stop_gradient(nll)

        losses, nll = linear_loss(
            both,
            hidden,
            matrix,
            part.target,
            jax.lax.stop_gradient(theirs),
            bias=bias,
            where=where,
            logit_softcap=_softcap(transformer),
        )
        return jnp.sum(losses), jnp.sum(nll)

    kinds = {"label_smoothing": smoothed, "distillation": distilled}
    return kinds.get(loss.kind, regularized)
