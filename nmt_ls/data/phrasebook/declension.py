"""German noun phrases: determiners, adjective endings, nouns and pronouns in four cases.

Cases are the letters N, A, D, G. `address` is how "you" is put: "du", "ihr" or "Sie".
"""

from __future__ import annotations

from functools import lru_cache

from nmt_ls.data.phrasebook.meaning import (
    Adjective,
    Distribution,
    Name,
    Noun,
    NounPhrase,
    Place,
    Pronoun,
)

_GENDERS = ("m", "f", "n", "pl")


def _table(**rows: str) -> dict[tuple[str, str], str]:
    """Endings by (case, gender) from one row of m f n pl endings per case; "-" is no ending."""
    return {
        (case, gender): ending.strip("-")
        for case, row in rows.items()
        for gender, ending in zip(_GENDERS, row.split(), strict=True)
    }


_ARTICLE = _table(
    N="der die das die", A="den die das die", D="dem der dem den", G="des der des der"
)
# dieser, jeder, welcher, alle; also the adjective when nothing before it shows the case,
# except that the genitive m/n of that strong adjective is -en.
_DER_ENDING = _table(N="er e es e", A="en e es e", D="em er em en", G="es er es er")
_STRONG = _DER_ENDING | {("G", "m"): "en", ("G", "n"): "en"}
_EIN_ENDING = _table(N="- e - e", A="en e - e", D="em er em en", G="es er es er")
_WEAK = _table(N="e e e en", A="en e e en", D="en en en en", G="en en en en")
_MIXED = _table(N="er e es en", A="en e es en", D="en en en en", G="en en en en")
_RELATIVE = _ARTICLE | {("D", "pl"): "denen"}

_DER_WORDS = {"this": "dies", "these": "dies", "every": "jed", "all the": "all", "which": "welch"}
_POSSESSIVES = {"my": "mein", "his": "sein", "her": "ihr", "our": "unser", "their": "ihr"}
_EIN_WORDS = {"a": "ein", "no": "kein", **_POSSESSIVES}
_YOUR = {"du": "dein", "ihr": "euer", "Sie": "Ihr"}
# Words before a plural that leave the adjective strong.
_QUANTIFIERS: dict[str, Distribution] = {
    "": (("", 1.0),),
    "activity": (("", 1.0),),  # Fußball spielen: the noun is part of what one does
    "many": (("viele", 1.0),),
    "some": (("einige", 0.7), ("ein paar", 0.3)),
    "several": (("mehrere", 1.0),),
    "few": (("wenige", 1.0),),
}
_UNITS = (
    "",
    "ein",
    "zwei",
    "drei",
    "vier",
    "fünf",
    "sechs",
    "sieben",
    "acht",
    "neun",
    "zehn",
    "elf",
    "zwölf",
    "dreizehn",
    "vierzehn",
    "fünfzehn",
    "sechzehn",
    "siebzehn",
    "achtzehn",
    "neunzehn",
)
_TENS = ("zwanzig", "dreißig", "vierzig", "fünfzig", "sechzig", "siebzig", "achtzig", "neunzig")

DEFINITE = frozenset({"the", "this", "these", "all the", "your", *_POSSESSIVES})
"""Determiners whose phrase names something known: it comes early and is negated by nicht."""

_PRONOUNS = {
    "I": ("ich", "mich", "mir"),
    "he": ("er", "ihn", "ihm"),
    "she": ("sie", "sie", "ihr"),
    "it": ("es", "es", "ihm"),
    "we": ("wir", "uns", "uns"),
    "they": ("sie", "sie", "ihnen"),
    "du": ("du", "dich", "dir"),
    "ihr": ("ihr", "euch", "euch"),
    "Sie": ("Sie", "Sie", "Ihnen"),
}
_PERSON = {"I": 0, "du": 1, "we": 3, "ihr": 4, "they": 5, "Sie": 5}
_REFLEXIVE = {
    "A": ("mich", "dich", "sich", "uns", "euch", "sich"),
    "D": ("mir", "dir", "sich", "uns", "euch", "sich"),
}

_CONTRACTIONS: dict[tuple[str, str], Distribution] = {
    ("in", "dem"): (("im", 1.0),),
    ("an", "dem"): (("am", 1.0),),
    ("in", "das"): (("ins", 0.85), ("in das", 0.15)),
    ("an", "das"): (("ans", 0.85), ("an das", 0.15)),
    ("zu", "dem"): (("zum", 1.0),),
    ("zu", "der"): (("zur", 1.0),),
    ("von", "dem"): (("vom", 1.0),),
    ("bei", "dem"): (("beim", 1.0),),
}


def number_word(number: int) -> str:
    """A whole number from 2 to 99 in German words: "einundzwanzig"."""
    if number < 20:
        return _UNITS[number]
    tens, units = divmod(number, 10)
    return f"{_UNITS[units]}{'und' if units else ''}{_TENS[tens - 2]}"


def pronoun(key: str, case: str, address: str) -> str:
    """A personal pronoun by its English subject form."""
    return _PRONOUNS[address if key == "you" else key]["NAD".index(case)]


def reflexive(person: int, case: str) -> str:
    """The reflexive pronoun for a subject of this person (0-5)."""
    return _REFLEXIVE[case][person]


def person(nominal: object, address: str) -> int:
    """The verb's person (0-5) for a subject."""
    if isinstance(nominal, Pronoun):
        return _PERSON.get(address if nominal.key == "you" else nominal.key, 2)
    if isinstance(nominal, NounPhrase):
        return 5 if nominal.number == "pl" else 2
    head = getattr(nominal, "head", None)
    return person(head, address) if head is not None else 2


def relative_pronoun(noun: Noun, number: str) -> str:
    """The nominative relative pronoun for an antecedent."""
    return _RELATIVE["N", "pl" if number == "pl" else noun.gender]


def noun_form(noun: Noun, case: str, plural: bool) -> str:
    """A noun in a case: dative plural -n, genitive -(e)s, weak masculines."""
    if plural:
        needs_n = case == "D" and noun.plural[-1] not in "ns"
        return f"{noun.plural}n" if needs_n else noun.plural
    if noun.weak:
        return noun.lemma if case == "N" else noun.genitive
    return noun.genitive if case == "G" and noun.gender != "f" else noun.lemma


def genitive_name(name: str) -> str:
    """A name before what it owns: Annas, Lukas', Max'."""
    return f"{name}'" if name[-1] in "sßzx" else f"{name}s"


def _options(adjective: Adjective | None) -> tuple[tuple[str, float], ...]:
    if adjective is None:
        return (("", 1.0),)
    return tuple((stem, p) for (_, stem, _), p in adjective.german)


def _determiner(key: str, case: str, gender: str, address: str) -> tuple[Distribution, dict]:
    """A determiner's wordings and the adjective endings it calls for."""
    if key == "the":
        return ((_ARTICLE[case, gender], 1.0),), _WEAK
    if key in _DER_WORDS:
        return ((_DER_WORDS[key] + _DER_ENDING[case, gender], 1.0),), _WEAK
    if key in _EIN_WORDS or key == "your":
        stem = _YOUR[address] if key == "your" else _EIN_WORDS[key]
        ending = _EIN_ENDING[case, gender]
        if stem == "euer" and ending:
            stem = "eur"
        return ((stem + ending, 1.0),), _MIXED
    if key.startswith("number:"):
        return ((number_word(int(key[7:])), 1.0),), _STRONG
    words = _QUANTIFIERS[key]
    if case == "D":
        words = tuple((w + "n" if w and " " not in w else w, p) for w, p in words)
    return words, _STRONG


@lru_cache(maxsize=1 << 16)
def noun_phrase(phrase: NounPhrase, case: str, address: str) -> Distribution:
    """Every wording of a noun phrase in a case."""
    plural = phrase.number == "pl"
    result: dict[str, float] = {}

    def add(text: str, probability: float) -> None:
        result[text] = result.get(text, 0.0) + probability

    for noun, p in phrase.noun.german:
        gender = "pl" if plural else noun.gender
        head = noun_form(noun, case, plural)
        for stem, q in _options(phrase.adjective):

            def body(
                endings: dict, stem: str = stem, head: str = head, gender: str = gender
            ) -> str:
                return f"{stem}{endings[case, gender]} {head}" if stem else head

            if phrase.owner is None:
                words, endings = _determiner(phrase.determiner, case, gender, address)
                for word, r in words:
                    add(f"{word} {body(endings)}".strip(), p * q * r)
                continue
            weak = f"{_ARTICLE[case, gender]} {body(_WEAK)}"
            if isinstance(phrase.owner, Name):
                name = phrase.owner.text
                add(f"{genitive_name(name)} {body(_STRONG)}", p * q * 0.8)
                add(f"{weak} von {name}", p * q * 0.2)
            else:
                for owner, r in noun_phrase(phrase.owner, "G", address):
                    add(f"{weak} {owner}", p * q * r * 0.85)
                for owner, r in prepositional("von", "D", phrase.owner, address):
                    add(f"{weak} {owner}", p * q * r * 0.15)
    return tuple(result.items())


@lru_cache(maxsize=1 << 14)
def prepositional(
    preposition: str, case: str, phrase: NounPhrase | Name | Pronoun, address: str
) -> Distribution:
    """A preposition with its noun phrase, contracted with the article (im, ans, zur)."""
    if isinstance(phrase, Name):
        return ((f"{preposition} {phrase.text}", 1.0),)
    if isinstance(phrase, Pronoun):
        return ((f"{preposition} {pronoun(phrase.key, case, address)}", 1.0),)
    result = []
    # Only the article contracts; "in dem" with a stressed demonstrative does not occur here.
    contracts = phrase.determiner == "the"
    for text, p in noun_phrase(phrase, case, address):
        article, _, rest = text.partition(" ")
        merged = _CONTRACTIONS.get((preposition, article)) if contracts else None
        for word, q in merged or ((f"{preposition} {article}", 1.0),):
            result.append((f"{word} {rest}" if rest else word, p * q))
    return tuple(result)


def place(where: Place, address: str) -> Distribution:
    """A place, or a direction, as a prepositional phrase."""
    return prepositional(where.preposition, where.case, where.phrase, address)
