"""What a run counts on the host: how far it is, what was best, and sums since the last record."""

import dataclasses
import math
import time
from typing import Any

from nmt_ls.config import TrainingConfig
from nmt_ls.data.batches import Batch
from nmt_ls.training.step import StepSums


@dataclasses.dataclass
class Progress:
    """The part of a run's state that lives on the host; saved with every checkpoint."""

    step: int = 0
    """Steps done."""
    tokens: int = 0
    """Real target tokens seen."""
    skipped: int = 0
    """Steps whose gradients were not finite."""
    best: float | None = None
    """Best validation value so far."""
    validations_without_best: int = 0
    validated: dict[str, float] = dataclasses.field(default_factory=dict)
    """Validation value by step (JSON keys are strings)."""
    stopped: bool = False
    """Early stopping has ended the run."""
    measured: str = ""
    """What the values are of: the metric, and the fingerprint of the text. Empty where it is not
    known: nothing was validated, or the checkpoint is older than this."""

    def as_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def exhausted(self, training: TrainingConfig) -> bool:
        """Whether patience has run out."""
        return bool(training.patience) and self.validations_without_best >= training.patience

    def over(self, training: TrainingConfig) -> bool:
        """Whether nothing is left to train: all steps are done, or early stopping has ended the
        run and would do so again, by the same metric and with the patience of now."""
        same = self._metric(training) == training.best_metric
        early = self.stopped and same and self.exhausted(training)
        return self.step >= training.max_steps or early

    def will_measure(self, metric: str, fingerprint: str) -> None:
        """Forget earlier validations if those to come are of another metric or other text."""
        measured = f"{metric} {fingerprint}"
        if self.measured and self.measured != measured:
            self.best, self.validations_without_best, self.validated = None, 0, {}
        self.measured = measured

    def _metric(self, training: TrainingConfig) -> str:
        return self.measured.split(" ")[0] or training.best_metric

    def see_validation(self, step: int, value: float, training: TrainingConfig) -> bool:
        """Record a validation; whether it is the best so far."""
        larger = self._metric(training) == "bleu"
        self.validated[str(step)] = value
        better = not math.isnan(value) and (
            self.best is None or (value > self.best if larger else value < self.best)
        )
        if better:
            self.best, self.validations_without_best = value, 0
        else:
            self.validations_without_best += 1
        return better

    def best_steps(self, steps: list[int], training: TrainingConfig) -> list[int]:
        """Those of these steps that were validated, best first, earlier first on ties.

        Best by the metric that was measured, whatever `training.best_metric` is now.
        """
        larger = self._metric(training) == "bleu"
        known = [(self.validated[str(s)], s) for s in steps if str(s) in self.validated]
        known = [(v, s) for v, s in known if not math.isnan(v)]
        known.sort(key=lambda pair: (-pair[0] if larger else pair[0], pair[1]))
        return [s for _, s in known]


class Interval:
    """Sums of the steps between two records."""

    def __init__(self) -> None:
        self.started = time.perf_counter()
        self.steps = 0
        self.tokens = 0.0
        # Of the steps that were taken: a single skipped one would make every mean NaN.
        self.loss = self.nll = self.tokens_taken = 0.0
        self.gradient_norm, self.learning_rate = math.nan, 0.0
        self.source_tokens = self.source_positions = self.target_positions = 0

    def see_batch(self, batch: Batch) -> None:
        self.source_tokens += int(batch.source_lengths.sum())
        self.source_positions += batch.source.size
        self.target_positions += batch.target.size

    def see_sums(self, sums: StepSums) -> None:
        self.steps += 1
        self.tokens += float(sums.tokens)
        self.learning_rate = float(sums.learning_rate)
        if int(sums.skipped):
            return
        self.loss += float(sums.loss)
        self.nll += float(sums.nll)
        self.tokens_taken += float(sums.tokens)
        self.gradient_norm = float(sums.gradient_norm)

    def record(self) -> dict[str, Any]:
        """Means per real target token, and counts, since the last record.

        Loss, nll, perplexity and gradient norm are of the steps that were taken; NaN if all were
        skipped.
        """
        seconds = time.perf_counter() - self.started
        loss, nll = (
            total / self.tokens_taken if self.tokens_taken else math.nan
            for total in (self.loss, self.nll)
        )
        return {
            "loss": loss,
            "nll": nll,
            "perplexity": math.exp(min(nll, 700)),
            "gradient_norm": self.gradient_norm,
            "learning_rate": self.learning_rate,
            "steps": self.steps,
            "target_tokens": int(self.tokens),
            "target_positions": self.target_positions,
            "source_tokens": self.source_tokens,
            "source_positions": self.source_positions,
            "real_share": (self.source_tokens + self.tokens)
            / max(self.source_positions + self.target_positions, 1),
            "seconds": seconds,
            "target_tokens_per_second": self.tokens / max(seconds, 1e-9),
        }

    def postfix(self) -> dict[str, str]:
        """For the progress bar."""
        r = self.record()
        return {
            "tok/s": f"{r['target_tokens_per_second']:.0f}",
            "loss": f"{r['loss']:.3f}",
            "ppl": f"{r['perplexity']:.2f}",
            "grad": f"{r['gradient_norm']:.2f}",
            "lr": f"{r['learning_rate']:.1e}",
        }


def line_of(record: dict[str, Any], steps: int) -> str:
    """A record as a line, for logs without a terminal."""
    return (
        f"step {record['step']}/{steps}: loss {record['loss']:.3f},"
        f" perplexity {record['perplexity']:.2f}, gradient {record['gradient_norm']:.2f},"
        f" learning rate {record['learning_rate']:.1e},"
        f" {record['target_tokens_per_second']:.0f} target tokens/s"
    )
