"""What a sweep's strengths are called: ε of label smoothing, β of the losses that have no ε."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Strength:
    """How one kind of loss is spoken of."""

    symbol: str
    """What tables call it."""
    axis: str
    """What an axis calls it."""
    method: str
    """What is done at any strength but 0, inside a sentence."""
    meaning: str
    """What it is, in a sentence for newcomers."""

    def value(self, strength: float | str) -> str:
        """`ε = 0.1`."""
        return f"{self.symbol} = {float(strength):g}"


STRENGTHS = {
    "label_smoothing": Strength(
        "ε",
        "label smoothing ε",
        "smoothing",
        "Label smoothing: the share of each training target that goes to other words than the "
        "right one. 0 is plain cross-entropy.",
    ),
    "confidence_penalty": Strength(
        "β",
        "confidence penalty β",
        "the confidence penalty",
        "Confidence penalty: how much a model pays for straying from the prior, by default for "
        "predictions of low entropy. 0 is plain cross-entropy.",
    ),
    "generalized_entropy": Strength(
        "β",
        "generalized entropy β",
        "entropy regularisation",
        "Generalized entropy regularisation: how much a model pays for predictions far from the "
        "prior, by a divergence between those of label smoothing and of the confidence penalty. 0 "
        "is plain cross-entropy.",
    ),
    "distillation": Strength(
        "β",
        "distillation β",
        "distillation",
        "Distillation: the share of each training target that comes from a teacher’s predictions. "
        "0 is plain cross-entropy.",
    ),
}
"""By `loss.kind`."""

DEFAULT = "label_smoothing"


def strength_in(found: Mapping[str, Any]) -> Strength:
    """How a block of a comparison, or a run, is spoken of: by its `loss`, label smoothing if it
    says nothing."""
    return STRENGTHS[found.get("loss", DEFAULT)]


def losses_of(comparison: Mapping[str, Any]) -> dict[str, Strength]:
    """The kinds of loss in a comparison, in the order of its blocks."""
    kinds = dict.fromkeys(block.get("loss", DEFAULT) for block in comparison["tests"].values())
    return {kind: STRENGTHS[kind] for kind in kinds}


def symbol_of(losses: Iterable[Strength]) -> str:
    """What a table over runs of several kinds calls their strengths: `ε or β`."""
    return " or ".join(dict.fromkeys(loss.symbol for loss in losses))
