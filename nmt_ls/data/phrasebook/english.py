"""English spelling: inflection, a/an, and the step between words and a written sentence."""

from __future__ import annotations

import re
from collections.abc import Sequence

_VOWELS = "aeiou"
# Words whose first letter and first sound disagree.
_VOWEL_SOUND = re.compile(r"^(?!uni|use|one|eu)[aeiou]|^hour|^honest", re.IGNORECASE)
_TOKEN = re.compile(r"o'clock|'s\b|[.,?!]|[^\s.,?!']+")

NUMBERS = (
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
)
_TEENS = (
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")


def pluralise(noun: str) -> str:
    """The regular plural: -s."""
    return f"{noun}s"


def _with_s(verb: str) -> str:
    irregular = {"have": "has", "go": "goes", "do": "does"}
    if verb in irregular:
        return irregular[verb]
    if verb.endswith(("s", "sh", "ch", "x", "z")):
        return f"{verb}es"
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        return f"{verb[:-1]}ies"
    return f"{verb}s"


def _with_ed(verb: str) -> str:
    if verb.endswith("e"):
        return f"{verb}d"
    if verb.endswith("y") and verb[-2] not in _VOWELS:
        return f"{verb[:-1]}ied"
    if re.search(r"[^aeiou][aeiou][bgp]$", verb) and verb != "develop":
        return f"{verb}{verb[-1]}ed"  # stop, stopped
    return f"{verb}ed"


def _with_ing(verb: str) -> str:
    if verb.endswith("e") and not verb.endswith("ee"):
        return f"{verb[:-1]}ing"
    if re.search(r"[^aeiou][aeiou][bgptd]$", verb) and verb not in ("visit", "open"):
        return f"{verb}{verb[-1]}ing"  # get, getting
    return f"{verb}ing"


def inflect(base: str, past: str, participle: str, ing: str) -> tuple[str, str, str, str]:
    """Third person, past, past participle and -ing form; "-" asks for the regular form.

    Only the first word of a phrasal verb inflects: "look for", "looks for". A past without the
    particle ("-" for regular) gets it added; irregular columns are given in full.
    """
    verb, space, particle = base.partition(" ")
    rest = space + particle
    regular = _with_ed(verb) + rest
    past = regular if past == "-" else past
    participle = past if participle == "-" else participle
    return _with_s(verb) + rest, past, participle, _with_ing(verb) + rest if ing == "-" else ing


def number_word(number: int) -> str:
    """A whole number from 2 to 99 in words: "twenty-one"."""
    if number < 10:
        return NUMBERS[number - 2]
    if number < 20:
        return _TEENS[number - 10]
    tens, units = divmod(number, 10)
    unit = {0: "", 1: "-one"}.get(units) if units < 2 else f"-{NUMBERS[units - 2]}"
    return f"{_TENS[tens - 2]}{unit}"


def write(words: Sequence[str]) -> str:
    """Words of a derivation as a written sentence: a/an, 's, commas, a capital first letter."""
    text = ""
    for index, word in enumerate(words):
        if word == "a" and _VOWEL_SOUND.match(words[index + 1]):
            word = "an"
        glued = not text or word in (",", ".", "?", "!", "'s")
        text += word if glued else f" {word}"
    return text[0].upper() + text[1:]


def read(sentence: str) -> list[list[str]]:
    """The word sequences a written sentence may stand for (its first word in either case)."""
    words = ["a" if word == "an" else word for word in _TOKEN.findall(sentence)]
    if not words:
        return []
    lowered = words[0][0].lower() + words[0][1:]
    lowered = "a" if lowered == "an" else lowered
    return [words] if lowered == words[0] else [[lowered, *words[1:]], words]
