"""English tense patterns: which auxiliary a tense takes and which verb form follows.

`agreement` is the subject's: I, we, you, 3sg or 3pl.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

_BE = {"I": ("am",), "3sg": ("is",)}
_WAS = {"I": ("was",), "3sg": ("was",)}


def be(agreement: str, tense: str = "present") -> tuple[str, ...]:
    """The form of "to be"."""
    if tense == "past":
        return _WAS.get(agreement, ("were",))
    return _BE.get(agreement, ("are",))


def _third(agreement: str, third: str, other: str) -> tuple[str, ...]:
    return (third,) if agreement == "3sg" else (other,)


def do(agreement: str) -> tuple[str, ...]:
    """The form of "to do"."""
    return _third(agreement, "does", "do")


def _fixed(*words: str) -> Callable[[str], tuple[str, ...]]:
    return lambda agreement: words


def _nothing(agreement: str) -> tuple[str, ...]:
    return ()


class Pattern(NamedTuple):
    """A tense: statement = subject, auxiliary, extra, verb; question = auxiliary first.

    `time` is the group of time adverbials that fit, "" for none. `load` counts the German
    choices the pattern brings along. `frequency`: "often" and the like may precede the verb.
    """

    tense: str
    auxiliary: Callable[[str], tuple[str, ...]]
    extra: tuple[str, ...]
    form: str
    time: str
    group: str
    weight: float
    modal: str = ""
    negative: bool = False
    load: int = 1
    question: bool = True
    frequency: bool = False


def _patterns() -> Iterator[Pattern]:
    have = lambda a: _third(a, "has", "have")  # noqa: E731
    want = lambda a: _third(a, "wants", "want")  # noqa: E731
    yield Pattern("present", _nothing, (), "finite", "habit", "present", 1.0, frequency=True)
    yield Pattern("progressive", be, (), "ing", "now", "present", 1.4, load=2)
    yield Pattern("past", _nothing, (), "past", "past", "past", 2.0, load=2)
    yield Pattern("perfect", have, (), "participle", "", "perfect", 0.6, frequency=True)
    yield Pattern("future", _fixed("will"), (), "base", "fut", "future", 0.8, load=2)
    for modal, weight in (("can", 0.6), ("must", 0.3), ("should", 0.3), ("may", 0.2)):
        yield Pattern("present", _fixed(modal), (), "base", "fut", "modal", weight, modal)
    yield Pattern("present", have, ("to",), "base", "fut", "modal", 0.4, "have to", question=False)
    yield Pattern(
        "present", want, ("to",), "base", "fut", "modal", 0.4, "want to", load=2, question=False
    )
    yield Pattern(
        "present",
        _fixed("would"),
        ("like", "to"),
        "base",
        "fut",
        "modal",
        0.4,
        "would like to",
        load=2,
    )
    yield Pattern("past", _fixed("could"), (), "base", "past", "past", 0.3, "could", question=False)
    yield Pattern(
        "past", _fixed("had"), ("to",), "base", "past", "past", 0.4, "had to", question=False
    )
    yield Pattern(
        "past", _fixed("wanted"), ("to",), "base", "past", "past", 0.3, "wanted to", question=False
    )
    no: dict[str, Any] = {"negative": True, "question": False}
    yield Pattern("present", do, ("not",), "bare", "", "present", 0.4, **no)
    yield Pattern("progressive", be, ("not",), "ing", "now", "present", 0.3, **no)
    yield Pattern("past", _fixed("did", "not"), (), "bare", "past", "past", 0.6, load=2, **no)
    yield Pattern("perfect", have, ("not",), "participle", "", "perfect", 0.15, **no)
    yield Pattern("future", _fixed("will", "not"), (), "base", "fut", "future", 0.2, load=2, **no)
    yield Pattern("present", _fixed("cannot"), (), "base", "fut", "modal", 0.3, "can", **no)
    yield Pattern(
        "present", _fixed("should", "not"), (), "base", "fut", "modal", 0.1, "should", **no
    )
    yield Pattern(
        "present", _fixed("must", "not"), (), "base", "fut", "modal", 0.1, "must not", **no
    )
    yield Pattern("past", _fixed("could", "not"), (), "base", "past", "past", 0.2, "could", **no)


PATTERNS = tuple(_patterns())
"""Every tense pattern of the corpus."""
