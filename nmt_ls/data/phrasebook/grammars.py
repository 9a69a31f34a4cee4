"""The grammars: "full", and "small" for a demonstration that trains in minutes on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from nmt_ls.data.phrasebook.cfg import ContextFreeGrammar
from nmt_ls.data.phrasebook.lexicon import lexicon
from nmt_ls.data.phrasebook.patterns import PATTERNS
from nmt_ls.data.phrasebook.sentence_rules import EnglishRules, Scope

LIMIT = 288
"""Largest load of a sentence: the product of its rules' German choices. Where "gerade" has two or
three places, before and after objects, it counts as one choice: so there may be up to twice as many
translations as the load says."""

_FULL_SENTENCES = {
    "statements": 40.0,
    "descriptions": 8.0,
    "questions": 9.0,
    "wh_questions": 8.0,
    "requests": 3.0,
    "subordinate": 13.0,
    "because_of_it": 4.0,
    "coordinate": 5.0,
    "reported": 6.0,
    "comparisons": 2.0,
    "numbers": 2.0,
    "professions": 2.0,
}
_SMALL_SENTENCES = {
    "statements": 60.0,
    "descriptions": 10.0,
    "questions": 10.0,
    "because_of_it": 10.0,
    "because": 10.0,
}
_SMALL_PATTERNS = frozenset(
    {
        ("present", "", False),
        ("progressive", "", False),
        ("past", "", False),
        ("present", "can", False),
        ("present", "must", False),
        ("present", "want to", False),
        ("progressive", "", True),
    }
)
_SMALL_DETERMINERS = frozenset({"the", "a", "this", "my", "his", "her", "number:2", "number:3"})
_SMALL_PRONOUNS = frozenset({"I", "he", "she", "we", "they"})


def full() -> Scope:
    """Everything in the lexicon and every kind of sentence."""
    return Scope(lexicon(), _FULL_SENTENCES)


def small(keep: Callable[[str, bool], bool] = lambda english, small: small) -> Scope:
    """The words marked "s" in the lexicon and short sentences; `keep` may choose fewer words."""
    patterns = tuple(p for p in PATTERNS if (p.tense, p.modal, p.negative) in _SMALL_PATTERNS)
    return Scope(
        lexicon().select(keep),
        _SMALL_SENTENCES,
        patterns,
        _SMALL_DETERMINERS,
        _SMALL_PRONOUNS,
        relative=False,
        clock=False,
    )


def compile_scope(scope: Scope) -> ContextFreeGrammar:
    """The grammar of a scope."""
    return ContextFreeGrammar(("sentence",), EnglishRules(scope), LIMIT)


_SCOPES: dict[str, Callable[[], Scope]] = {"full": full, "small": small}
GRAMMARS = tuple(_SCOPES)


@cache
def compiled(name: str) -> ContextFreeGrammar:
    """The compiled grammar of a name in `GRAMMARS`; compiled once per process."""
    return compile_scope(_SCOPES[name]())
