"""English sentences of two clauses as grammar rules, and what their second clauses say."""

from __future__ import annotations

from collections.abc import Iterator

from nmt_ls.data.phrasebook.cfg import Parts, Rule, Symbol
from nmt_ls.data.phrasebook.clause_rules import fixed_predicate, to_be
from nmt_ls.data.phrasebook.lexicon import Lexicon, plain_rendering
from nmt_ls.data.phrasebook.meaning import (
    Adjective,
    Clause,
    Nominal,
    NounPhrase,
    Predicate,
    Pronoun,
    Rendering,
    Sentence,
)
from nmt_ls.data.phrasebook.noun_rules import AGREEMENTS, constant
from nmt_ls.data.phrasebook.patterns import Pattern, be

_IT = Pronoun("it")

# English verb: construction and German. Verbs of saying also take a main clause in German.
_SAYING = {
    ("says", "say"): ("said", plain_rendering("sagen")),
    ("thinks", "think"): (
        "said",
        ((plain_rendering("glauben")[0][0], 0.6), (plain_rendering("denken")[0][0], 0.4)),
    ),
    ("believes", "believe"): ("said", plain_rendering("glauben")),
    ("hopes", "hope"): ("said", plain_rendering("hoffen")),
    ("knows", "know"): ("that", plain_rendering("wissen")),
    ("hears", "hear"): ("that", plain_rendering("hören")),
}
_WONDERING = {
    ("asks", "ask"): (plain_rendering("fragen"), False),
    ("does not know", "do not know"): (plain_rendering("wissen"), True),
}


_WANTED = (
    ("text", "text"),
    ("thing", "thing"),
    ("clothes", "clothes"),
    ("dish", "dish"),
    ("furniture", "furniture"),
    ("car", "vehicle"),
    ("bicycle", "vehicle"),
    ("boat", "vehicle"),
)
"""Things one has a reason to want: a class or a noun, and the class of its adjectives."""

_CONTENTS: tuple[Symbol, ...] = (
    ("clause", "statement", "any", "positive"),
    ("copula", "present", "statement", "predicative"),
)
"""What can be said, thought or asked."""


class ComplexRules:
    """Rules for sentences of two clauses; each method writes out one symbol."""

    def __init__(self, lexicon: Lexicon, patterns: tuple[Pattern, ...]) -> None:
        self._lexicon = lexicon
        self._patterns = patterns

    def weather(self, tense: str) -> list[Rule]:
        """ "It is raining", "it was cold"."""
        return list(self._weather(tense))

    def _weather(self, tense: str) -> Iterator[Rule]:
        verb = "is" if tense == "present" else "was"
        for english, german in (("raining", "regnen"), ("snowing", "schneien")):
            clause = Clause(
                _IT, plain_rendering(german), "progressive" if tense == "present" else "past"
            )
            yield Rule(("it", verb, english), constant(clause), 2.0, 2, lemmas=("it", english[:-3]))
        for entry in self._lexicon.adverbs:
            if "weather" in entry.groups:
                clause = fixed_predicate(_IT, tense, entry.phrase.text)
                words = ("it", verb, entry.english)
                yield Rule(words, constant(clause), 0.5, lemmas=("it", entry.english))

    def reason(self, tense: str) -> list[Rule]:
        """What one does something because of, or in spite of: a state, the weather, a duty."""
        rules = [
            Rule((("copula", tense, "statement", "state"),), lambda c: c, 3.0),
            Rule((("weather", tense),), lambda c: c, 1.5),
        ]
        group = "modal" if tense == "present" else "past"
        return [*rules, Rule((("clause", "statement", group, "deed"),), lambda c: c, 2.0)]

    def subordinate(self) -> list[Rule]:
        """Because, although, if, when, while and before."""
        statement = "statement"
        rules: list[Rule] = []
        for tense in ("present", "past"):
            plain: Symbol = ("clause", statement, tense, "scene")
            reason: Symbol = ("reason", tense)
            rules.append(_joined("because", (plain, "because", reason, "."), 3.0, 2))
            rules.append(_joined("although", (plain, "although", reason, "."), 1.0, 2))
        for group in ("future", "present"):
            then: Symbol = ("clause", statement, group, "deed")
            condition: Symbol = ("reason", "present")
            rules.append(_joined("if first", ("if", condition, ",", then, "."), 0.6, 2))
            rules.append(_joined("if", (then, "if", condition, "."), 0.4, 2))
        past: Symbol = ("clause", statement, "past", "deed")
        state: Symbol = ("copula", "past", statement, "state")
        rules.append(_joined("when first", ("when", past, ",", past, "."), 0.7, 1))
        rules.append(_joined("when first", ("when", state, ",", past, "."), 0.7, 1))
        before: Symbol = ("clause", statement, "past", "positive")
        rules.append(_joined("before first", ("before", before, ",", before, "."), 0.5, 2))
        rules.append(_joined("before", (before, "before", before, "."), 0.5, 2))
        going: Symbol = ("clause", statement, "progressive", "positive")
        rules.append(_joined("while first", ("while", going, ",", going, "."), 0.8, 1))
        return rules

    def because(self) -> list[Rule]:
        """Short sentences with because."""
        rules: list[Rule] = []
        for tense in ("present", "past"):
            plain: Symbol = ("clause", "statement", tense, "scene")
            for reason in (("copula", tense, "statement", "state"), ("weather", tense)):
                rules.append(_joined("because", (plain, "because", reason, "."), 1.0, 2))
        return rules

    def because_of_it(self) -> list[Rule]:
        """ "Anna wants to buy the car because it is cheap." "It" agrees with the German noun."""
        rules: list[Rule] = []
        for pattern in self._patterns:
            if pattern.negative or pattern.modal not in ("", "want to", "would like to"):
                continue
            tense = "past" if pattern.tense == "past" else "present"
            for what, noun_class in _WANTED:
                for agreement in AGREEMENTS:
                    rules.append(_because_it(pattern, tense, what, noun_class, agreement))
        return rules

    def coordinate(self) -> list[Rule]:
        """Two main clauses with and or but."""
        rules: list[Rule] = []
        for group in ("present", "past"):
            clause: Symbol = ("clause", "statement", group, "deed")
            state: Symbol = ("copula", group, "statement", "state")
            rules.append(_joined("and", (clause, "and", clause, "."), 1.0, 1))
            rules.append(_joined("but", (clause, ",", "but", clause, "."), 0.6, 1))
            rules.append(_joined("but", (state, ",", "but", clause, "."), 0.6, 1))
        return rules

    def reported(self) -> list[Rule]:
        """ "Peter says that he is tired", "Anna does not know whether the train is coming"."""
        rules: list[Rule] = []
        for agreement in AGREEMENTS:
            who: Symbol = ("subject", "adult", agreement, "known", True, False)
            weight = 2.0 if agreement == "3sg" else 0.6
            for said in _CONTENTS:
                for forms, (kind, german) in _SAYING.items():
                    verb = forms[0 if agreement == "3sg" else 1]
                    rules.append(_reported(kind, who, verb, "that", said, german, False, weight))
                for forms, (german, negative) in _WONDERING.items():
                    verb = forms[0 if agreement == "3sg" else 1]
                    rules.append(
                        _reported("whether", who, verb, "whether", said, german, negative, weight)
                    )
        return rules


def _joined(kind: str, parts: Parts, weight: float, load: int) -> Rule:
    lemma = kind.partition(" ")[0]
    return Rule(parts, lambda *c: Sentence(kind, c), weight, load, lemmas=(lemma,))


def _reported(
    kind: str,
    who: Symbol,
    verb: str,
    link: str,
    said: Symbol,
    german: tuple[tuple[Rendering, float], ...],
    negative: bool,
    weight: float,
) -> Rule:
    def build(speaker: Nominal, content: Clause) -> Sentence:
        return Sentence(kind, (Clause(speaker, german, "present", "", negative), content))

    words = tuple(verb.split())
    load = len(german) * (2 if kind == "said" else 1)
    return Rule((who, *words, link, said, "."), build, weight, load, lemmas=(words[-1], link))


def _because_it(pattern: Pattern, tense: str, what: str, noun_class: str, agreement: str) -> Rule:
    form = pattern.form
    if form == "finite":
        form = "third" if agreement == "3sg" else "plain"
    who: Symbol = ("subject", "adult", agreement, "known", True, False)
    vp: Symbol = ("vp", form, "adult", f"want:{what}", agreement)
    thing: Symbol = ("np", what, "sg", "known", True)
    quality: Symbol = ("adjective", noun_class, "merit")
    it_is = ("because", "it", *be("3sg", tense))

    def build(subject: Nominal, verb: Clause, thing: NounPhrase, adjective: Adjective) -> Sentence:
        first = verb._replace(subject=subject, tense=pattern.tense, modal=pattern.modal)
        reason = to_be(_IT, tense, Predicate("adjective", adjective))
        return Sentence("because it", (first, reason), None, thing)

    parts: Parts = (
        who,
        *pattern.auxiliary(agreement),
        *pattern.extra,
        vp,
        thing,
        *it_is,
        quality,
        ".",
    )
    weight = pattern.weight * (2.0 if agreement == "3sg" else 1.0)
    return Rule(parts, build, weight, 2 * pattern.load, lemmas=("because", "it"))
