"""Which determiners an English noun phrase may have, and how often."""

from __future__ import annotations

POSSESSIVES = dict.fromkeys(("my", "your", "his", "her", "our", "their"), 0.35)
"""Possessives with their relative frequency beside an article."""
_NUMBERS = {f"number:{n}": 0.12 for n in range(2, 13)}

DETERMINERS: dict[tuple[str, str], dict[str, float]] = {
    ("any", "sg"): {"the": 4.0, "a": 3.0, "this": 0.6, "every": 0.15, **POSSESSIVES},
    ("any", "pl"): {
        "the": 3.0,
        "": 1.0,
        "these": 0.4,
        "many": 0.3,
        "some": 0.3,
        "several": 0.2,
        "all the": 0.3,
        **POSSESSIVES,
        **_NUMBERS,
    },
    ("any", "mass"): {"": 4.0, "the": 2.0, **dict.fromkeys(POSSESSIVES, 0.1)},
    ("known", "sg"): {"the": 4.0, "this": 0.6, **POSSESSIVES},
    ("known", "pl"): {"the": 3.0, "these": 0.4, **POSSESSIVES},
    ("known", "mass"): {"the": 3.0, **dict.fromkeys(POSSESSIVES, 0.2)},
    # What may follow a negated verb: nicht with something known, kein with a/bare.
    ("denied", "sg"): {"the": 4.0, "a": 3.0, "this": 0.5, **POSSESSIVES},
    ("denied", "pl"): {"the": 3.0, "": 1.0, "these": 0.3, **POSSESSIVES},
    ("denied", "mass"): {"": 4.0, "the": 2.0, **dict.fromkeys(POSSESSIVES, 0.1)},
    # The thing given: a bare plural after "her" would read as her own.
    ("given", "sg"): {"the": 4.0, "a": 4.0, "this": 0.4, **POSSESSIVES},
    ("given", "pl"): {"the": 3.0, "these": 0.3, "many": 0.4, "some": 0.4, **_NUMBERS},
    ("given", "mass"): {"the": 3.0, **dict.fromkeys(POSSESSIVES, 0.2)},
    ("place", "sg"): {"the": 8.0, "a": 0.6, **dict.fromkeys(("my", "our", "his", "her"), 0.2)},
    # The two sides of a comparison: "My car is faster than his car."
    ("this side", "sg"): {"the": 2.0, "this": 1.0, "my": 1.0, "our": 0.6},
    ("that side", "sg"): dict.fromkeys(("your", "his", "her", "their"), 1.0),
}
"""Relative frequencies by set and number. "" is a bare noun, "number:3" the word three."""
