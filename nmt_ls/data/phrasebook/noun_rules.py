"""English noun phrases, places and adverbials as grammar rules.

Symbols written here: noun, adjective, determiner, np, owner, object, subject, location,
direction, adjunct, time and adverb. `agreement` is one of I, we, you, 3sg, 3pl; `determiners`
names a set of determiners in `determiners.DETERMINERS`.
"""

from __future__ import annotations

import math
from typing import Any

from nmt_ls.data.phrasebook.cfg import Rule, Symbol
from nmt_ls.data.phrasebook.declension import number_word as german_number
from nmt_ls.data.phrasebook.determiners import DETERMINERS, POSSESSIVES
from nmt_ls.data.phrasebook.english import NUMBERS
from nmt_ls.data.phrasebook.lexicon import PERSON, PLACE, AdverbEntry, Lexicon, PlaceEntry
from nmt_ls.data.phrasebook.meaning import (
    Name,
    NounEntry,
    NounPhrase,
    Phrase,
    Place,
    Pronoun,
    Relative,
)

_OWNED = frozenset(
    ("thing", "clothes", "vehicle", "dish", "text", "kin", "device", "instrument", "message")
)
_SUBJECT_PRONOUNS = {
    "I": ("I",),
    "we": ("we",),
    "you": ("you",),
    "3sg": ("he", "she"),
    "3pl": ("they",),
}
_OBJECT_PRONOUNS = {"I": "me", "we": "us", "you": "you", "he": "him", "she": "her", "they": "them"}
# A subject and an object of the same person would need a reflexive pronoun.
_EXCLUDED = {"I": ("I", "we"), "we": ("I", "we"), "you": ("you",)}
AGREEMENTS = ("I", "we", "you", "3sg", "3pl")


def _keep(value: Any) -> Any:
    return value


def constant(value: Any) -> Any:
    """A builder for rules without symbols: always `value`."""
    return lambda: value


class NounRules:
    """Rules for everything that is not a clause; each method writes out one symbol."""

    def __init__(self, lexicon: Lexicon, determiners: frozenset[str], pronouns: frozenset[str]):
        self.lexicon = lexicon
        self._determiners = determiners
        self._pronouns = pronouns

    def noun(self, which: str, number: str) -> list[Rule]:
        """Nouns of a class, or the one noun of that name."""
        rules: list[Rule] = []
        for entry in self.lexicon.nouns:
            if which not in (entry.noun_class, entry.singular) or (number == "mass") != entry.mass:
                continue
            if number == "pl" and entry.single:
                continue
            text = entry.plural if number == "pl" else entry.singular
            rules.append(
                Rule(
                    tuple(text.split()),
                    constant(entry),
                    load=len(entry.german),
                    lemmas=(entry.singular,),
                )
            )
        return rules

    def adjective(self, noun_class: str, use: str) -> list[Rule]:
        """Adjectives for a class.

        Uses: "attributive", "predicative", "comparative", "state" (of people, a reason to act) or
        "merit" (of things, a reason to want them).
        """
        rules: list[Rule] = []
        for entry in self.lexicon.adjectives:
            if noun_class not in entry.classes:
                continue
            fits = {
                "attributive": not entry.predicative_only,
                "comparative": bool(entry.comparative),
                "state": "r" in entry.uses,
                "merit": "w" in entry.uses,
            }
            if not fits.get(use, True):
                continue
            text = entry.comparative if use == "comparative" else entry.english
            rules.append(
                Rule(
                    tuple(text.split()),
                    constant(entry),
                    load=len(entry.german),
                    lemmas=(entry.english,),
                )
            )
        return rules

    def determiner(self, kind: str, number: str, noun_class: str) -> list[Rule]:
        """Determiners of a set; kin are rarely "a sister", mostly "my sister"."""
        rules: list[Rule] = []
        kin = noun_class == "kin"
        possessive = 3.0 if kin else 1.0 if noun_class in _OWNED else 0.2
        for key, weight in DETERMINERS[kind, number].items():
            if not key or (self._determiners and key not in self._determiners):
                continue
            if kin and key not in POSSESSIVES and key != "the":
                continue
            words = (NUMBERS[int(key[7:]) - 2],) if key.startswith("number:") else key.split()
            load = 2 if key == "some" else 1
            heavier = possessive if key in POSSESSIVES and kind != "that side" else 1.0
            rules.append(
                Rule(
                    tuple(words), constant(key), weight * heavier, load, key == "your", tuple(words)
                )
            )
        return rules

    def np(self, which: str, number: str, determiners: str, plain: bool) -> list[Rule]:
        """Noun phrases; `plain` ones have no adjective."""
        table = DETERMINERS.get((determiners, number), {})
        noun_class = self.class_of(which)
        kin = noun_class == "kin"
        noun: Symbol = ("noun", which, number)
        adjective: Symbol = ("adjective", noun_class, "attributive")

        def with_determiner(key: str, *rest: Any) -> NounPhrase:
            return NounPhrase(key, number, rest[0] if len(rest) == 2 else None, rest[-1])

        def bare(*rest: Any) -> NounPhrase:
            return with_determiner("", *rest)

        def owned(owner: NounPhrase | Name, *rest: Any) -> NounPhrase:
            return with_determiner("the", *rest)._replace(owner=owner)

        heads = [((noun,), 1.0)] if plain else [((noun,), 0.65), ((adjective, noun), 0.35)]
        total = math.fsum(table.values())
        rules: list[Rule] = []
        determiner: Symbol = ("determiner", determiners, number, noun_class)
        for head, weight in heads:
            rules.append(Rule((determiner, *head), with_determiner, weight * total))
            if "" in table and not kin:
                rules.append(Rule(head, bare, weight * table[""]))
            if noun_class in _OWNED and determiners in ("any", "known", "denied"):
                rules.append(Rule((("owner",), "'s", *head), owned, weight * 0.06 * total, 2))
        return rules

    def class_of(self, which: str) -> str:
        """The class a class name or a noun's name stands for."""
        named = (n.noun_class for n in self.lexicon.nouns if n.singular == which)
        return next(named, which)

    def owner(self) -> list[Rule]:
        """Possessors before 's: the teacher, my brother, Anna."""
        rules = [
            Rule(("the", ("noun", "adult", "sg")), lambda n: NounPhrase("the", "sg", None, n), 1.0)
        ]
        for key in ("my", "his", "her", "your", "our"):
            if not self._determiners or key in self._determiners:
                rules.append(
                    Rule(
                        (key, ("noun", "kin", "sg")),
                        lambda n, key=key: NounPhrase(key, "sg", None, n),
                        0.3,
                        1,
                        key == "your",
                    )
                )
        return [*rules, Rule((("name",),), _keep, 1.0)]

    def name(self) -> list[Rule]:
        """Given names."""
        return [Rule((name.text,), constant(name)) for name, _ in self.lexicon.names]

    def object(self, targets: tuple[str, ...], determiners: str, agreement: str) -> list[Rule]:
        """Objects of these classes; people may also be names and pronouns.

        `agreement` is the subject's, to leave out "I see me"; "" leaves out pronouns.
        """
        rules: list[Rule] = []
        for which in targets:
            if self.class_of(which) in PLACE and determiners == "any":
                kind = "known"  # one likes or visits a particular town
            else:
                kind = determiners
            for number, weight in (("sg", 1.0), ("pl", 0.4), ("mass", 1.0)):
                rules.append(Rule((("np", which, number, kind, False),), _keep, weight))
        if set(PERSON) <= set(targets):
            rules.append(Rule((("name",),), _keep, 1.0))
            for key, word in _OBJECT_PRONOUNS.items():
                if not agreement or key in _EXCLUDED.get(agreement, ()):
                    continue
                if not self._pronouns or key in self._pronouns:
                    rules.append(
                        Rule((word,), constant(Pronoun(key)), 0.35, 1, key == "you", (word,))
                    )
        return rules

    def subject(
        self, noun_class: str, agreement: str, determiners: str, plain: bool, relative: bool
    ) -> list[Rule]:
        """Subjects: pronouns and names among adults, noun phrases in every class."""
        rules: list[Rule] = []
        if noun_class == "adult":
            for key in _SUBJECT_PRONOUNS[agreement]:
                if not self._pronouns or key in self._pronouns:
                    rules.append(Rule((key,), constant(Pronoun(key)), 1.0, 1, key == "you", (key,)))
            if agreement == "3sg":
                rules.append(Rule((("name",),), _keep, 1.0))
        if agreement in ("3sg", "3pl"):
            number = agreement[1:]
            numbers = ("sg", "mass") if number == "sg" else ("pl",)
            for n in numbers:
                rules.append(Rule((("np", noun_class, n, determiners, plain),), _keep, 3.0))
            if relative and noun_class in ("adult", "kid"):
                form = "third" if number == "sg" else "plain"
                noun: Symbol = ("noun", noun_class, number)
                clause: Symbol = ("vp", form, noun_class, "bare", agreement)

                def with_relative(entry: NounEntry, inner: Any) -> Relative:
                    return Relative(NounPhrase("the", number, None, entry), inner)

                rules.append(Rule(("the", noun, "who", clause), with_relative, 0.25))
        return rules

    def location(self, codes: str) -> list[Rule]:
        """Where something is, for verbs with these place codes."""
        return self._where(codes, "loc:")

    def direction(self, codes: str) -> list[Rule]:
        """Where something goes."""
        return self._where(codes, "dir:")

    def _where(self, codes: str, group: str) -> list[Rule]:
        rules: list[Rule] = []
        for entry in self.lexicon.places:
            if set(entry.sets) & set(codes):
                rules.append(_place_rule(entry, group == "dir:"))
        for adverb in self.lexicon.adverbs:
            if any(g.startswith(group) and set(g[4:]) & set(codes) for g in adverb.groups):
                rules.append(adverb_rule(adverb))
        return rules

    def adjunct(self, codes: str, agreement: str) -> list[Rule]:
        """A free place, manner or companion."""
        rules: list[Rule] = []
        places = "".join(c for c in codes if c not in "mcb")
        if places:
            rules.append(Rule((("location", places),), _keep, 1.0, 2))
        if "m" in codes:
            rules.append(Rule((("adverb", "manner"),), _keep, 0.4))
        if "b" in codes:
            rules.append(Rule((("adverb", "transport"),), _keep, 0.8))
        if "c" in codes:
            companion: Symbol = ("object", PERSON, "known", agreement)
            rules.append(
                Rule(("with", companion), lambda who: Place("mit", "D", who), 0.5, lemmas=("with",))
            )
        return rules

    def adverb(self, group: str) -> list[Rule]:
        """Fixed adverbials of a group."""
        return [adverb_rule(a) for a in self.lexicon.adverbs if group in a.groups]

    def time(self, group: str, clock: bool) -> list[Rule]:
        """Time adverbials of a group; with `clock` also times of day."""
        rules = self.adverb(group)
        if clock:
            for hour in range(1, 13):
                english = ("one", *NUMBERS)[hour - 1]
                german = ("ein", *map(german_number, range(2, 13)))[hour - 1]
                rules.append(_clock_rule(("at", english, "o'clock"), f"um {german} Uhr"))
                following = ("zwei", *map(german_number, range(3, 13)), "eins")[hour - 1]
                rules.append(_clock_rule(("at", "half", "past", english), f"um halb {following}"))
        return rules


def adverb_rule(entry: AdverbEntry) -> Rule:
    """The rule for a fixed adverbial."""
    words = tuple(entry.english.split())
    return Rule(words, constant(entry.phrase), 1.0, len(entry.phrase.text), lemmas=words)


def _clock_rule(words: tuple[str, ...], german: str) -> Rule:
    return Rule(words, constant(Phrase(((german, 1.0),))), 0.08, lemmas=words)


def _place_rule(entry: PlaceEntry, direction: bool) -> Rule:
    english = entry.direction if direction else entry.location
    preposition = entry.german_direction if direction else entry.german_location
    case = "A" if direction and preposition != "zu" else "D"
    # "ins" or "in das": only with neuter nouns, but a noun's options may differ in gender.
    contracts = case == "A" and preposition in ("in", "an")
    load = 2 if contracts and any(n.gender == "n" for n, _ in entry.noun.german) else 1

    def build(phrase: NounPhrase) -> Place:
        return Place(preposition, case, phrase)

    np: Symbol = ("np", entry.noun.singular, "sg", "place", False)
    return Rule((*english.split(), np), build, 1.0, load, lemmas=tuple(english.split()))
