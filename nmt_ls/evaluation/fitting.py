"""Temperature and un-mixing, fitted on validation text: how well could this model be calibrated?"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from nmt_ls.data.evaluation_sets import EvaluationSet
from nmt_ls.decoding.mixture import prior_of
from nmt_ls.decoding.scoring import Adjustment, total_nll
from nmt_ls.training.runs import LoadedRun

TotalNll = Callable[[Adjustment], Float[np.ndarray, "K"]]
"""Σ nll under each of K adjustments, arrays `[K]`."""

_TEMPERATURES = np.geomspace(0.5, 2.0, 5)
_DELTAS = np.linspace(0, 0.6, 5)
_ROUNDS = 4


class Fitted(NamedTuple):
    """The adjustment of each kind with the least nll on validation text."""

    temperature: Adjustment
    unmixed: Adjustment
    both: Adjustment
    """Un-mixed, then tempered."""


def fit_adjustments(total: TotalNll) -> Fitted:
    """Searches a grid, then the neighbourhood of its best point, at half the spacing each time.

    Each of the four rounds is one pass of the model. Temperature to about 2 %, δ to about 0.01:
    far inside the noise of a validation set.

    Args:
      total: Σ nll of the validation text under adjustments.
    """
    temperatures = pair_temperatures = _TEMPERATURES
    deltas = pair_deltas = _DELTAS
    for _ in range(_ROUNDS):
        pairs = [Adjustment(t, d) for t in pair_temperatures for d in pair_deltas]
        # Untouched is among the candidates of each kind.
        tempered = [Adjustment(), *(Adjustment(t, 0.0) for t in temperatures)]
        clean = [Adjustment(), *(Adjustment(1.0, d) for d in deltas)]
        tried = [*tempered, *clean, *pairs]
        nll = total(Adjustment(*(np.array(x) for x in zip(*tried, strict=True)))).tolist()
        scored = list(zip(nll, tried, strict=True))
        first, second = len(tempered), len(tempered) + len(clean)
        best = [min(part)[1] for part in (scored[:first], scored[first:second], scored)]
        found = Fitted(*(Adjustment(float(t), float(d)) for t, d in best))
        temperatures = _around_ratio(found.temperature.temperature, temperatures)
        deltas = _around(found.unmixed.delta, deltas)
        pair_temperatures = _around_ratio(found.both.temperature, pair_temperatures)
        pair_deltas = _around(found.both.delta, pair_deltas)
    return found


def _around(value: float, grid: np.ndarray) -> np.ndarray:
    step = (grid[-1] - grid[0]) / 4
    low = min(max(value - step, 0.0), 0.9)
    return np.linspace(low, low + 2 * step, 5)


def _around_ratio(value: float, grid: np.ndarray) -> np.ndarray:
    ratio = (grid[-1] / grid[0]) ** 0.25
    return np.geomspace(value / ratio, value * ratio, 5)


def fit_run(run: LoadedRun, validation: EvaluationSet) -> tuple[Fitted, np.ndarray]:
    """(what fits a run's validation text best, the prior it is un-mixed from)."""
    subwords = run.subwords
    prior = prior_of(run.config.loss, subwords.target_size, subwords.pad, run.prior)

    def total(adjustments: Adjustment) -> np.ndarray:
        return total_nll(
            run.config.model, subwords, run.params, validation.source_ids, validation.target_ids,
            prior, adjustments, batch_sentences=run.config.decoding.batch_sentences,
        )  # fmt: skip

    return fit_adjustments(total), prior
