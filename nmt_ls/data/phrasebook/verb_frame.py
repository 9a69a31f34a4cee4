"""The verbs of a German clause: the finite one, and those that close the clause."""

from __future__ import annotations

from nmt_ls.data.phrasebook.choice import Chooser, Piece
from nmt_ls.data.phrasebook.lexicon import german_verb
from nmt_ls.data.phrasebook.meaning import Clause, GermanVerb, Rendering

PERFECT_FOR_PAST = (("perfect", 0.7), ("preterite", 0.3))
"""English simple past: mostly the perfect in speech."""

# English modal: German modal and whether it is past or the fixed form "sollte"/"möchte".
_MODALS: dict[str, tuple[tuple[tuple[str, str], float], ...]] = {
    "can": ((("können", "present"), 1.0),),
    "must": ((("müssen", "present"), 1.0),),
    "have to": ((("müssen", "present"), 1.0),),
    "should": ((("sollen", "preterite"), 1.0),),
    "may": ((("dürfen", "present"), 1.0),),
    "want to": ((("wollen", "present"), 0.75), (("möchten", "present"), 0.25)),
    "would like to": ((("möchten", "present"), 0.8), (("wollen", "present"), 0.2)),
    "could": ((("können", "preterite"), 1.0),),
    "had to": ((("müssen", "preterite"), 1.0),),
    "wanted to": ((("wollen", "preterite"), 1.0),),
    # "must not" forbids; German says it with dürfen.
    "must not": ((("dürfen", "present"), 1.0),),
}
_MOECHTEN = ("möchte", "möchtest", "möchte", "möchten", "möchtet", "möchten")
_WERDEN = german_verb("werden")


class VerbFrame:
    """The finite verb of a clause and the verb parts that close it."""

    def __init__(self, finite: str, closing: list[Piece], prefix: str = "") -> None:
        self.finite = finite
        self.closing = closing
        self.prefix = prefix

    def close(self, last: bool) -> list[Piece]:
        """The end of the clause; with `last` the finite verb is part of it."""
        if last:
            return [*self.closing, self.prefix + self.finite]
        return [*self.closing, self.prefix]


def verb_frame(clause: Clause, rendering: Rendering, person: int, chooser: Chooser) -> VerbFrame:
    """The verb forms of a clause; `person` is the subject's (0-5)."""
    verb = rendering.verb
    fixed: list[Piece] = [rendering.fixed] if rendering.fixed else []
    if clause.modal:
        name, tense = chooser.pick(_MODALS[clause.modal])
        if name == "möchten":
            finite = _MOECHTEN[person]
        else:
            modal = german_verb(name)
            finite = (modal.present if tense == "present" else modal.preterite)[person]
        return VerbFrame(finite, [*fixed, verb.infinitive])
    tense = _tense(clause, verb, person, chooser)
    if tense == "future":
        return VerbFrame(_WERDEN.present[person], [*fixed, verb.infinitive])
    if tense == "perfect":
        auxiliary = german_verb(verb.auxiliary)
        return VerbFrame(auxiliary.present[person], [*fixed, verb.participle])
    forms = verb.preterite if tense == "preterite" else verb.present
    return VerbFrame(forms[person], fixed, verb.prefix)


def _tense(clause: Clause, verb: GermanVerb, person: int, chooser: Chooser) -> str:
    if clause.tense == "past":
        if verb.preterite_only:
            return "preterite"
        # Nobody says "du lasest" or "ihr halft" in conversation.
        return "perfect" if person in (1, 4) else chooser.pick(PERFECT_FOR_PAST)
    if clause.tense == "future" and clause.time is not None:
        # The time already says that it is in the future.
        return chooser.pick((("future", 0.6), ("present", 0.4)))
    return clause.tense if clause.tense in ("perfect", "future") else "present"
