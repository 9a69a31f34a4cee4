"""Exact quantities of the corpus: entropies, oracle losses and next-token probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Truth:
    """What an ideal model would score on a list of pairs.

    nll_floor: nats per token that no model can beat on average: the summed entropy of
        p(target | source) over the sources, divided by the expected number of target tokens.
    nll_oracle: nats per token of the references at hand under p(target | source). It is
        infinite if a reference is not among the listed targets, as with noise.
    tokens: target tokens in the references, one end-of-sentence per sentence included.
    expected_tokens: target tokens expected under p(target | source), counted likewise.
    """

    nll_floor: float
    nll_oracle: float
    tokens: int
    expected_tokens: float


def entropy(translations: Sequence[tuple[str, float]]) -> float:
    """Entropy of a distribution over translations, in nats."""
    return -math.fsum(p * math.log(p) for _, p in translations if p > 0.0)


def next_token_probabilities(
    targets: Sequence[tuple[Sequence[int], float]], prefix: Sequence[int], eos: int
) -> dict[int, float]:
    """The true probability of each next token after `prefix`.

    `targets` are the listed translations as tokens without `eos`, with their probabilities; the
    tokeniser must be deterministic and give different texts different tokens. KeyError if no
    target begins with `prefix`. Tokens come in order of first appearance.
    """
    length = len(prefix)
    start = list(prefix)
    mass: dict[int, float] = {}
    for tokens, probability in targets:
        if probability > 0.0 and list(tokens[:length]) == start:
            token = tokens[length] if len(tokens) > length else eos
            mass[token] = mass.get(token, 0.0) + probability
    if not mass:
        raise KeyError(f"no target begins with {start}")
    total = math.fsum(mass.values())
    return {token: p / total for token, p in mass.items()}
