"""German verb forms from principal parts.

Persons are numbered 0-5: ich, du, er/sie/es, wir, ihr, sie/Sie.
"""

from __future__ import annotations

import re

from nmt_ls.data.phrasebook.meaning import GermanVerb

_INSEPARABLE = ("be", "ge", "er", "ver", "zer", "ent", "emp", "miss", "über", "unter")
_NO_GE = re.compile(rf"^({'|'.join(_INSEPARABLE)}).*[aeiouäöü].*n$|ieren$")
# A stem that ends in t, d or consonant + m/n needs an e before -t and -st (arbeitet, öffnest).
_NEEDS_E = re.compile(r"([td]|ch[mn]|[^aeiouäöülrmnh][mn])$")

_SEIN = ("bin", "bist", "ist", "sind", "seid", "sind")


def conjugate(
    infinitive: str,
    prefix: str = "",
    du: str = "",
    er: str = "",
    preterite: str = "",
    participle: str = "",
    auxiliary: str = "",
    flags: str = "",
) -> GermanVerb:
    """All forms of a verb; empty arguments are filled in as for a regular (weak) verb.

    `infinitive` includes the separable `prefix`; `du`, `er`, `preterite` (1st person singular)
    and `participle` are given without it. `auxiliary` is "s" for sein, otherwise haben.
    """
    bare = infinitive.removeprefix(prefix)
    stem = re.sub(r"(?<=[lr])n$|en$", "", bare) if bare not in ("sein",) else "sei"
    link = "e" if _NEEDS_E.search(stem) else ""
    du = du or stem + ("t" if stem[-1] in "sßzx" else f"{link}st")
    er = er or f"{stem}{link}t"
    weak = not preterite
    preterite = preterite or f"{stem}{link}te"
    if not participle:
        participle = f"{stem}{link}t"
        if weak and not _NO_GE.search(bare):
            participle = f"ge{participle}"
    if bare == "sein":
        present = _SEIN
    else:
        ich = f"{stem[:-2]}le" if bare.endswith("eln") else f"{stem}e"
        ich = preterite_present(infinitive, er) or ich
        present = (ich, du, er, bare, f"{stem}{link}t", bare)
    return GermanVerb(
        infinitive,
        prefix,
        present,
        _preterite(preterite),
        prefix + participle,
        "sein" if auxiliary == "s" else "haben",
        _imperative(bare, stem, er, bool(link)),
        "pret" in flags,
    )


def preterite_present(infinitive: str, er: str) -> str:
    """The ich-form of a verb whose ich- and er-forms agree (kann, weiß, mag), else ""."""
    modal = ("können", "müssen", "sollen", "wollen", "dürfen", "mögen", "wissen")
    return er if infinitive in modal else ""


def _preterite(first: str) -> tuple[str, ...]:
    """The six preterite forms from the first person singular (machte, ging, las, stand)."""
    if first.endswith("e"):
        return (first, f"{first}st", first, f"{first}n", f"{first}t", f"{first}n")
    sibilant = first[-1] in "sßz"
    dental = first[-1] in "td"
    du = f"{first}est" if sibilant or dental else f"{first}st"
    ihr = f"{first}et" if dental else f"{first}t"
    return (first, du, first, f"{first}en", ihr, f"{first}en")


def _imperative(infinitive: str, stem: str, er: str, link: bool) -> str:
    """The du-imperative: lies, gib (e to i), but fahr (no umlaut), warte, füttere, mach."""
    raised = "i" in er and "i" not in stem and "ä" not in er
    if raised:
        return er[:-1]
    if infinitive.endswith("eln"):
        return f"{stem[:-2]}le"
    return f"{stem}e" if link or stem.endswith(("er", "ig")) else stem
