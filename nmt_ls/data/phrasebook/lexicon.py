"""The lexicon: tab-separated tables beside this module, read into entries.

Each table's first line names its columns. German options are separated by ", " and may carry a
weight after a colon; weights are scaled to probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources
from typing import NamedTuple

from nmt_ls.data.phrasebook.conjugation import conjugate
from nmt_ls.data.phrasebook.english import inflect, pluralise
from nmt_ls.data.phrasebook.meaning import (
    Adjective,
    Distribution,
    GermanVerb,
    Name,
    Noun,
    NounEntry,
    Phrase,
    Rendering,
    T,
    VerbEntry,
)

PERSON = ("adult", "kid", "kin")
ANIMAL = ("hunter", "prey")
PLACE = ("room", "site")
_WIDER = {"person": PERSON, "animal": ANIMAL, "place": PLACE}
"""Names in the tables that stand for several noun classes."""

ADVERB_GROUPS = ("past", "now", "fut", "habit", "freq", "done", "manner", "degree", "transport")


class PlaceEntry(NamedTuple):
    """A noun one can be at or go to, with the prepositions each language uses.

    `sets` are one-letter codes naming which verbs may use the place.
    """

    noun: NounEntry
    sets: str
    location: str
    direction: str
    german_location: str
    german_direction: str
    small: bool


class AdverbEntry(NamedTuple):
    """A fixed adverbial. `groups` say where it may stand (past, now, freq, loc:h, dir:p ...)."""

    english: str
    groups: frozenset[str]
    phrase: Phrase
    small: bool


class Lexicon(NamedTuple):
    """All entries a grammar may use, in table order."""

    nouns: tuple[NounEntry, ...]
    adjectives: tuple[Adjective, ...]
    verbs: tuple[VerbEntry, ...]
    adverbs: tuple[AdverbEntry, ...]
    places: tuple[PlaceEntry, ...]
    names: tuple[tuple[Name, bool], ...]

    def select(self, keep: Callable[[str, bool], bool]) -> Lexicon:
        """The entries for which `keep(english, small)` holds."""
        return Lexicon(
            tuple(n for n in self.nouns if keep(n.singular, n.small)),
            tuple(a for a in self.adjectives if keep(a.english, a.small)),
            tuple(v for v in self.verbs if keep(v.base, v.small)),
            tuple(a for a in self.adverbs if keep(a.english, a.small)),
            tuple(p for p in self.places if keep(p.noun.singular, p.small)),
            tuple(n for n in self.names if keep(n[0].text, n[1])),
        )


def rows(table: str) -> Iterator[list[str]]:
    """The data rows of a table, padded with empty cells to the width of its header."""
    path = resources.files(__package__).joinpath("lexicon").joinpath(f"{table}.tsv")
    lines = path.read_text(encoding="utf-8").splitlines()
    width = lines[0].count("\t") + 1
    for line in lines[1:]:
        if line and not line.startswith("#"):
            cells = line.split("\t")
            yield cells + [""] * (width - len(cells))


def _normal(options: list[tuple[T, float]]) -> tuple[tuple[T, float], ...]:
    # fsum, because sum rounds differently from Python 3.12 on and draws must not change.
    total = math.fsum(weight for _, weight in options)
    return tuple((value, weight / total) for value, weight in options)


def _weighted(cell: str) -> list[tuple[str, float]]:
    """Split "a:7, b:3" into its options and weights (1 where none is given)."""
    options = []
    for item in cell.split(", "):
        text, colon, weight = item.rpartition(":")
        options.append((text, float(weight)) if colon else (item, 1.0))
    return options


def wordings(cell: str) -> Distribution:
    """The weighted wordings in a table cell as a distribution."""
    return _normal(_weighted(cell))


def expand_classes(cell: str) -> frozenset[str]:
    """The noun classes named in a cell, with "person" written out."""
    classes = cell.split()
    return frozenset(c for name in classes for c in _WIDER.get(name, (name,)))


@cache
def german_verbs() -> dict[str, GermanVerb]:
    """The irregular and separable German verbs by infinitive."""
    return {row[0]: conjugate(*row) for row in rows("german_verbs")}


def german_verb(infinitive: str) -> GermanVerb:
    """A German verb; one that is not in the table is regular."""
    return german_verbs().get(infinitive) or conjugate(infinitive)


def plain_rendering(infinitive: str) -> tuple[tuple[Rendering, float], ...]:
    """One German verb that governs nothing, as the only rendering."""
    return ((Rendering(german_verb(infinitive), "", "", ""), 1.0),)


def _nouns(cell: str) -> tuple[tuple[Noun, float], ...]:
    options = []
    for item in cell.split(", "):
        lemma, gender, genitive, plural, *weight = item.split(":")
        noun = Noun(
            lemma,
            "m" if gender == "w" else gender,
            gender == "w",
            lemma + genitive,
            "" if plural == "-" else plural,
        )
        options.append((noun, float(weight[0]) if weight else 1.0))
    return _normal(options)


def _rendering(text: str) -> Rendering:
    """Read "sich erinnern an+A", "sich!ansehen A" (dative reflexive), "gehen =ins Bett"."""
    text, _, fixed = text.partition(" =")
    reflexive = "D" if text.startswith("sich!") else "A" if text.startswith("sich ") else ""
    infinitive, _, government = text[5 if reflexive else 0 :].partition(" ")
    verb = german_verb(infinitive)
    if government == "A":
        verb = verb._replace(auxiliary="haben")  # er ist gefahren, but er hat das Auto gefahren
    return Rendering(verb, government, reflexive, fixed)


def _verb(row: list[str]) -> VerbEntry:
    base, past, participle, ing, subjects, frame, adjuncts, german, flags = row
    forms = inflect(base, past, participle, ing)
    kind, _, complements = frame.partition(":")
    words = tuple(
        c for name in complements.split(",") for c in _WIDER.get(name, (name,) if name else ())
    )
    options = _normal([(_rendering(text), weight) for text, weight in _weighted(german)])
    return VerbEntry(
        base,
        *forms,
        expand_classes(subjects),
        kind,
        words,
        adjuncts,
        options,
        "stat" in flags.split(),
        not {"stat", "noing"} & set(flags.split()),
        "posture" in flags.split(),
        "w" in flags.split(),
        "s" in flags.split(),
    )


def _adjective(row: list[str]) -> Adjective:
    english, comparative, classes, german, german_comparative, flags = row
    options = []
    for index, (text, weight) in enumerate(_weighted(german)):
        lemma, _, stem = text.partition("/")
        degree = german_comparative.split(", ")[index] if comparative != "-" else ""
        options.append(((lemma, stem or lemma, degree), weight))
    comparative = "" if comparative == "-" else comparative
    return Adjective(
        english,
        comparative,
        expand_classes(classes),
        _normal(options),
        "p" in flags.split(),
        frozenset(flags.split()),
        "s" in flags.split(),
    )


def _noun(row: list[str]) -> NounEntry:
    english, noun_class, german, flags = row
    singular, _, plural = english.partition("/")
    words = flags.split()
    professions = next((w.removeprefix("prof=") for w in words if w.startswith("prof=")), "")
    nouns = _nouns(german)
    feminine = professions.split(",") if professions else []
    return NounEntry(
        singular,
        "" if plural == "-" else plural or pluralise(singular),
        noun_class,
        nouns,
        next((w for w in words if w in ("m", "f")), ""),
        tuple((text, p) for text, (_, p) in zip(feminine, nouns, strict=False)),
        "one" in words,
        "s" in words,
    )


@cache
def lexicon() -> Lexicon:
    """The whole lexicon."""
    nouns = tuple(_noun(row) for row in rows("nouns"))
    by_name = {noun.singular: noun for noun in nouns}
    places = tuple(
        PlaceEntry(by_name[name], sets, at, to, german_at, german_to, small == "s")
        for name, sets, at, to, german_at, german_to, small in rows("places")
    )
    adverbs = tuple(
        AdverbEntry(
            english,
            frozenset(groups.split()),
            Phrase(wordings(german), groups.startswith("loc:")),
            small == "s",
        )
        for english, groups, german, small in rows("adverbs")
    )
    return Lexicon(
        nouns,
        tuple(_adjective(row) for row in rows("adjectives")),
        tuple(_verb(row) for row in rows("verbs")),
        adverbs,
        places,
        tuple((Name(text, sex), small == "s") for text, sex, small in rows("names")),
    )
