"""Label-smoothed cross-entropy for JAX, usable without the rest of the package."""

from nmt_ls.losses.chunked import linear_loss
from nmt_ls.losses.cross_entropy import (
    label_smoothed_cross_entropy,
    label_smoothed_cross_entropy_with_statistics,
)
from nmt_ls.losses.distillation import distillation
from nmt_ls.losses.linear import (
    linear_label_smoothed_cross_entropy,
    linear_label_smoothed_cross_entropy_sum,
    linear_label_smoothed_cross_entropy_sum_with_statistics,
    linear_label_smoothed_cross_entropy_with_statistics,
)
from nmt_ls.losses.priors import masked_prior, uniform_prior, unigram_prior
from nmt_ls.losses.regularizers import confidence_penalty, generalized_entropy
from nmt_ls.losses.smoothing import (
    CONVENTIONS,
    ClassWeighted,
    class_weighted,
    convention,
    graduated_smoothing,
    scheduled_smoothing,
)
from nmt_ls.losses.statistics import TokenStatistics, masked_mean, masked_sum, token_statistics

__all__ = [
    "CONVENTIONS",
    "ClassWeighted",
    "TokenStatistics",
    "class_weighted",
    "confidence_penalty",
    "convention",
    "distillation",
    "generalized_entropy",
    "graduated_smoothing",
    "label_smoothed_cross_entropy",
    "label_smoothed_cross_entropy_with_statistics",
    "linear_label_smoothed_cross_entropy",
    "linear_label_smoothed_cross_entropy_sum",
    "linear_label_smoothed_cross_entropy_sum_with_statistics",
    "linear_label_smoothed_cross_entropy_with_statistics",
    "linear_loss",
    "masked_mean",
    "masked_prior",
    "masked_sum",
    "scheduled_smoothing",
    "token_statistics",
    "uniform_prior",
    "unigram_prior",
]
