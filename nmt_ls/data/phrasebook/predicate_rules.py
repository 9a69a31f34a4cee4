"""English sentences that compare, count and name professions as grammar rules."""

from __future__ import annotations

from nmt_ls.data.phrasebook.cfg import Parts, Rule, Symbol
from nmt_ls.data.phrasebook.clause_rules import fixed_predicate, to_be
from nmt_ls.data.phrasebook.declension import number_word as german_number
from nmt_ls.data.phrasebook.english import number_word
from nmt_ls.data.phrasebook.lexicon import PERSON, Lexicon, plain_rendering
from nmt_ls.data.phrasebook.meaning import (
    Adjective,
    Clause,
    Distribution,
    Name,
    Nominal,
    NounPhrase,
    Predicate,
    Pronoun,
    Sentence,
)
from nmt_ls.data.phrasebook.noun_rules import AGREEMENTS, constant
from nmt_ls.data.phrasebook.patterns import be

_COSTS = plain_rendering("kosten")
_AGES = {"adult": (18, 80), "kid": (2, 16), "kin": (20, 70)}
"""Plausible ages in years by noun class."""

_PRICES = {"clothes": (10, 400), "thing": (2, 90), "text": (2, 60), "furniture": (40, 999)}
"""Plausible prices in euros by noun class."""


class PredicateRules:
    """Rules for comparisons, ages, prices and professions; each method writes one symbol."""

    def __init__(self, lexicon: Lexicon) -> None:
        self._lexicon = lexicon

    def comparisons(self) -> list[Rule]:
        """ "My car is faster than his car." """
        rules: list[Rule] = []
        classes = ("kin", "hunter", "vehicle", "clothes", "thing", "dish")
        for noun_class in classes:
            more: Symbol = ("adjective", noun_class, "comparative")
            sides: list[tuple[Symbol, Symbol]] = [
                (
                    ("np", noun_class, "sg", "this side", True),
                    ("np", noun_class, "sg", "that side", True),
                )
            ]
            if noun_class == "kin":
                sides.append((("name",), ("np", "kin", "sg", "that side", True)))
                sides.append((("np", "kin", "sg", "this side", True), ("name",)))

            rules += [
                Rule((left, "is", more, "than", right, "."), _compare, lemmas=("be", "than"))
                for left, right in sides
            ]
        return rules

    def numbers(self) -> list[Rule]:
        """Ages and prices."""
        rules: list[Rule] = []
        for agreement in AGREEMENTS:
            for noun_class in PERSON if agreement == "3sg" else ("adult",):
                who: Symbol = ("subject", noun_class, agreement, "known", True, False)
                lowest, highest = _AGES[noun_class]
                parts: Parts = (who, *be(agreement), ("age", lowest, highest), "years", "old", ".")
                rules.append(Rule(parts, _aged, lemmas=("year", "old")))
        for noun_class, (lowest, highest) in _PRICES.items():
            for agreement, verb in (("3sg", "costs"), ("3pl", "cost")):
                what: Symbol = ("subject", noun_class, agreement, "known", False, False)
                parts = (what, verb, ("price", lowest, highest), "euros", ".")
                rules.append(Rule(parts, _priced, 0.6, lemmas=("cost", "euro")))
        return rules

    def age(self, lowest: int, highest: int) -> list[Rule]:
        """Ages in words."""
        ages = range(lowest, highest + 1)
        return [Rule((number_word(n),), constant(german_number(n))) for n in ages]

    def price(self, lowest: int, highest: int) -> list[Rule]:
        """Prices in digits."""
        return [Rule((str(n),), constant(str(n))) for n in range(lowest, highest + 1)]

    def professions(self) -> list[Rule]:
        """ "Anna is a teacher." The German noun follows the person's sex."""
        rules: list[Rule] = []
        for tense, verb in (("present", "is"), ("past", "was")):
            for sex in ("m", "f"):

                def build(who: Nominal, text: Distribution, tense: str = tense) -> Sentence:
                    return Sentence("statement", (fixed_predicate(who, tense, text),))

                parts: Parts = (("person_of", sex), verb, "a", ("profession", sex), ".")
                rules.append(Rule(parts, build, lemmas=("be",)))
        return rules

    def person_of(self, sex: str) -> list[Rule]:
        """A subject known to be a man or a woman: she, Anna, my sister."""
        chosen = self._lexicon
        rules = [Rule((name.text,), constant(name)) for name, _ in chosen.names if name.sex == sex]
        pronoun = "he" if sex == "m" else "she"
        rules.append(Rule((pronoun,), constant(Pronoun(pronoun)), 3.0, lemmas=(pronoun,)))
        for entry in chosen.nouns:
            if entry.sex == sex and entry.noun_class == "kin":
                for key in ("my", "his", "her"):
                    phrase = NounPhrase(key, "sg", None, entry)
                    words = (key, entry.singular)
                    rules.append(
                        Rule(words, constant(phrase), 0.5, len(entry.german), lemmas=words)
                    )
        return rules

    def profession(self, sex: str) -> list[Rule]:
        """What somebody is, usually without an article in German."""
        rules: list[Rule] = []
        for entry in self._lexicon.nouns:
            if not entry.professions:
                continue
            masculine = tuple((noun.lemma, p) for noun, p in entry.german)
            words = masculine if sex == "m" else entry.professions
            article = "ein" if sex == "m" else "eine"
            text = tuple(
                option
                for word, p in words
                for option in ((word, 0.85 * p), (f"{article} {word}", 0.15 * p))
            )
            rules.append(
                Rule(
                    tuple(entry.singular.split()),
                    constant(text),
                    1.0,
                    len(text),
                    lemmas=(entry.singular,),
                )
            )
        return rules


def _compare(left: Nominal, adjective: Adjective, right: NounPhrase | Name) -> Sentence:
    clause = to_be(left, "present", Predicate("comparative", adjective, None, right))
    return Sentence("statement", (clause,))


def _aged(who: Nominal, age: str) -> Sentence:
    clause = fixed_predicate(who, "present", ((f"{age} Jahre alt", 1.0),))
    return Sentence("statement", (clause,))


def _priced(what: Nominal, price: str) -> Sentence:
    predicate = Predicate("fixed", text=((f"{price} Euro", 1.0),))
    return Sentence("statement", (Clause(what, _COSTS, "present", predicate=predicate),))
