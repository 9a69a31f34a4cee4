"""Whole English sentences as grammar rules."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from nmt_ls.data.phrasebook.cfg import Parts, Rule, Symbol
from nmt_ls.data.phrasebook.clause_rules import ClauseRules
from nmt_ls.data.phrasebook.complex_rules import ComplexRules
from nmt_ls.data.phrasebook.lexicon import Lexicon, wordings
from nmt_ls.data.phrasebook.meaning import (
    Clause,
    NounEntry,
    NounPhrase,
    Pronoun,
    Sentence,
)
from nmt_ls.data.phrasebook.noun_rules import NounRules
from nmt_ls.data.phrasebook.patterns import PATTERNS, Pattern
from nmt_ls.data.phrasebook.predicate_rules import PredicateRules


class Scope(NamedTuple):
    """Which part of the language a grammar covers.

    `sentences` gives the relative frequency of each kind of sentence; empty sets of determiners
    and pronouns allow all of them; `relative` and `clock` admit relative clauses and times of
    day.
    """

    lexicon: Lexicon
    sentences: dict[str, float]
    patterns: tuple[Pattern, ...] = PATTERNS
    determiners: frozenset[str] = frozenset()
    pronouns: frozenset[str] = frozenset()
    relative: bool = True
    clock: bool = True


class EnglishRules:
    """Writes out any symbol of a scope's grammar."""

    def __init__(self, scope: Scope) -> None:
        self._scope = scope
        self._nouns = NounRules(scope.lexicon, scope.determiners, scope.pronouns)
        self._clauses = ClauseRules(scope.lexicon, scope.patterns, scope.relative, scope.clock)

        self._complex = ComplexRules(scope.lexicon, scope.patterns)
        self._predicates = PredicateRules(scope.lexicon)

    def __call__(self, symbol: Symbol) -> Sequence[Rule]:
        """The rules of a symbol."""
        name, *features = symbol
        for part in (self, self._complex, self._predicates, self._clauses, self._nouns):
            method: Callable[..., Sequence[Rule]] | None = getattr(part, name, None)
            if method is not None:
                return method(*features)
        raise AssertionError(f"no rules for {name}")

    def sentence(self) -> list[Rule]:
        """Every kind of sentence in the scope, with its relative frequency."""
        return [
            Rule(((kind,),), lambda s: s, weight) for kind, weight in self._scope.sentences.items()
        ]

    def statements(self) -> list[Rule]:
        """ "My brother read the newspaper yesterday." """
        return [_single("statement", (("clause", "statement", "any", "main"), "."))]

    def descriptions(self) -> list[Rule]:
        """ "The car was very expensive." """
        return [
            _single("statement", (("copula", tense, "statement", "predicative"), "."), weight)
            for tense, weight in (("present", 2.0), ("past", 1.0))
        ]

    def questions(self) -> list[Rule]:
        """Yes/no questions."""
        return [
            _single("question", (("clause", "question", "any", "main"), "?"), 3.0),
            _single("question", (("copula", "present", "question", "predicative"), "?"), 0.7),
            _single("question", (("copula", "past", "question", "predicative"), "?"), 0.3),
        ]

    def wh_questions(self) -> list[Rule]:
        """Questions with what, where, when, why, who and which."""
        rules: list[Rule] = []
        for word, kind, german in (
            ("what", "what", "was"),
            ("where", "where", "wo"),
            ("where", "whither", "wohin"),
            ("when", "question", "wann"),
            ("why", "question", "warum:7, wieso:3"),
        ):
            front = wordings(german)
            style = "plain" if kind != "question" else "gap"
            rules.append(
                Rule(
                    (word, ("clause", kind, "any", style), "?"),
                    lambda c, front=front: Sentence("wh", (c,), front),
                    1.0,
                    len(front),
                    lemmas=(word,),
                )
            )
        for noun_class in ("text", "clothes", "thing", "car", "food"):
            for number in ("sg", "pl"):
                asked: Symbol = ("noun", noun_class, number)
                rest: Symbol = ("clause", f"which:{noun_class}", "any", "plain")

                def build(noun: NounEntry, clause: Clause, number: str = number) -> Sentence:
                    return Sentence("wh", (clause,), NounPhrase("which", number, None, noun))

                rules.append(Rule(("which", asked, rest, "?"), build, 0.2, lemmas=("which",)))
        return [*rules, Rule((("who",),), lambda s: s, 1.5)]

    def who(self) -> list[Rule]:
        """Questions about the subject: "Who is reading the book?" """
        rules: list[Rule] = []
        for pattern in self._scope.patterns:
            if pattern.negative or not pattern.question or pattern.tense == "perfect":
                continue
            form = "third" if pattern.form == "finite" else pattern.form
            vp: Symbol = ("vp", form, "adult", "bare", "3sg")
            parts: Parts = ("who", *pattern.auxiliary("3sg"), *pattern.extra, vp, "?")

            def build(verb: Clause, pattern: Pattern = pattern) -> Sentence:
                clause = verb._replace(tense=pattern.tense, modal=pattern.modal)
                return Sentence("who", (clause,))

            rules.append(Rule(parts, build, pattern.weight, pattern.load, lemmas=("who",)))
        return rules

    def requests(self) -> list[Rule]:
        """ "Please open the window." """
        vp: Symbol = ("vp", "base", "adult", "bare", "you")
        return [
            Rule(
                ("please", vp, "."),
                lambda verb: Sentence("imperative", (verb._replace(subject=Pronoun("you")),)),
                1.0,
                2,
                True,
                ("please",),
            )
        ]


def _single(kind: str, parts: Parts, weight: float = 1.0) -> Rule:
    return Rule(parts, lambda clause: Sentence(kind, (clause,)), weight)
