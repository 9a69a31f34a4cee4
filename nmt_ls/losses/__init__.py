"""Label-smoothed cross-entropy for JAX, usable without the rest of the package."""

from nmt_ls.losses.cross_entropy import (
    label_smoothed_cross_entropy,
    label_smoothed_cross_entropy_with_statistics,
)
from nmt_ls.losses.linear import linear_label_smoothed_cross_entropy_sum_with_statistics
from nmt_ls.losses.smoothing import convention, scheduled_smoothing
from nmt_ls.losses.statistics import TokenStatistics, masked_mean, masked_sum, token_statistics

__all__ = [
    "TokenStatistics",
    "convention",
    "label_smoothed_cross_entropy",
    "label_smoothed_cross_entropy_with_statistics",
    "linear_label_smoothed_cross_entropy_sum_with_statistics",
    "masked_mean",
    "masked_sum",
    "scheduled_smoothing",
    "token_statistics",
]
