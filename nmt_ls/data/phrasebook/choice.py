"""Choices with known probabilities, made once at random or in every possible way.

The German side is written as plain code that asks a chooser whenever two wordings are right.
`Draw` answers at random; `outcomes` runs the same code once for every sequence of answers, so a
drawn reference and the listed truth can never disagree.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

from nmt_ls.data.phrasebook.meaning import Distribution, T

Piece = str | Distribution


class Chooser(Protocol):
    """Answers which of several options, each with its probability, is taken."""

    def pick(self, options: Sequence[tuple[T, float]]) -> T:
        """Return one option; the probabilities sum to 1."""
        ...


def draw(options: Sequence[tuple[T, float]], rng: random.Random) -> T:
    """Draw one option with its probability. A single option uses no random number."""
    if len(options) == 1:
        return options[0][0]
    point = rng.random()
    for value, probability in options:
        point -= probability
        if point < 0.0:
            return value
    return options[-1][0]  # rounding left the point at 0


class Draw:
    """A chooser that draws each answer from a random number generator."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def pick(self, options: Sequence[tuple[T, float]]) -> T:
        """Return one option drawn at random."""
        return draw(options, self._rng)

    def wording(self, pieces: Sequence[Piece]) -> str:
        """Draw a wording of each piece and join them with single spaces."""
        words = (p if isinstance(p, str) else draw(p, self._rng) for p in pieces)
        return " ".join(word for word in words if word)


class _Replay:
    """A chooser that follows a script of answers, then takes the first option."""

    def __init__(self, script: list[int]) -> None:
        self.script = script
        self.sizes: list[int] = []
        self.probability = 1.0

    def pick(self, options: Sequence[tuple[T, float]]) -> T:
        if len(options) == 1:
            return options[0][0]
        turn = len(self.sizes)
        if turn == len(self.script):
            self.script.append(0)
        self.sizes.append(len(options))
        value, probability = options[self.script[turn]]
        self.probability *= probability
        return value


def outcomes(
    realise: Callable[[Chooser], Sequence[Piece]],
) -> Iterator[tuple[float, Sequence[Piece]]]:
    """Run `realise` for every sequence of answers; yield each probability and its pieces."""
    script: list[int] = []
    while True:
        replay = _Replay(script)
        pieces = realise(replay)
        yield replay.probability, pieces
        # Advance the script like an odometer: the last answer that has a next option moves on.
        while script and script[-1] + 1 == replay.sizes[len(script) - 1]:
            script.pop()
        if not script:
            return
        script[-1] += 1


def wordings(realise: Callable[[Chooser], Sequence[Piece]]) -> dict[str, float]:
    """Every text `realise` can produce with its probability; equal texts are summed."""
    total: dict[str, float] = {}
    for probability, pieces in outcomes(realise):
        partial: list[tuple[str, float]] = [("", probability)]
        for piece in pieces:
            options = ((piece, 1.0),) if isinstance(piece, str) else piece
            partial = [
                (f"{text} {word}" if text and word else text or word, p * q)
                for text, p in partial
                for word, q in options
            ]
        for text, p in partial:
            total[text] = total.get(text, 0.0) + p
    return total
