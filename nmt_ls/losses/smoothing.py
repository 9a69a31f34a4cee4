"""Where the ε mass goes: the conventions of other toolkits, and ε that changes over training."""

import math
from typing import Any

import numpy as np


def convention(name: str, vocab_size: int, pad_id: int | None = None) -> dict[str, Any]:
    """Keyword arguments for the losses that reproduce a toolkit's loss exactly.

    "pytorch" (`torch.nn.functional.cross_entropy`), "optax" (`smooth_labels`), "huggingface"
    (`LabelSmoother`), "marian" (`src/layers/loss.h`): ε/V on every class, the target included.
    "fairseq" (`label_smoothed_nll_loss`): ε/(V−1) on the other classes.
    "t5x" (`losses.py`), "flax_wmt" (`examples/wmt`): the same, minus the target's entropy.
    "joeynmt" (`XentLoss`): ε/(V−2) on the other classes except `pad_id`, minus the entropy.

    Raises:
      ValueError: an unknown name, or "joeynmt" without `pad_id`.
    """
    if name in ("pytorch", "optax", "huggingface", "marian"):
        return {}
    if name == "fairseq":
        return {"exclude_target": True}
    if name in ("t5x", "flax_wmt"):
        return {"exclude_target": True, "subtract_entropy": True}
    if name == "joeynmt":
        if pad_id is None:
            raise ValueError('convention "joeynmt" gives the padding no mass and needs pad_id')
        prior = np.ones(vocab_size, np.float32)
        prior[pad_id] = 0
        return {"prior": prior, "exclude_target": True, "subtract_entropy": True}
    raise ValueError(f"no smoothing convention {name!r}")


def scheduled_smoothing(
    step: int, steps: int, start: float, final: float, schedule: str = "constant"
) -> float:
    """ε at `step` (counted from 0) of `steps`: constant, or linear or cosine from start to final.

    Raises:
      ValueError: an unknown schedule.
    """
    if schedule == "constant":
        return start
    progress = min(step / max(steps - 1, 1), 1.0)
    if schedule == "linear":
        return start + (final - start) * progress
    if schedule == "cosine":
        return final + (start - final) * 0.5 * (1 + math.cos(math.pi * progress))
    raise ValueError(f"no smoothing schedule {schedule!r}")
