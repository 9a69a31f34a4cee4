"""German sentences: which verb forms stand where, and the order of everything between them.

A German clause is a frame of verbs around a middle field. In a main clause the finite verb comes
second, after one element of the speaker's choice; in a question first; in a subordinate clause
last. Participles, infinitives and separable prefixes close the clause.
"""

from __future__ import annotations

from typing import TypeGuard

from nmt_ls.data.phrasebook import declension
from nmt_ls.data.phrasebook.choice import Chooser, Piece
from nmt_ls.data.phrasebook.meaning import (
    Clause,
    Distribution,
    Name,
    Nominal,
    NounPhrase,
    Phrase,
    Place,
    Predicate,
    Pronoun,
    Relative,
    Rendering,
    Sentence,
)
from nmt_ls.data.phrasebook.verb_frame import VerbFrame, verb_frame

ADDRESS: Distribution = (("du", 0.5), ("Sie", 0.3), ("ihr", 0.2))
"""How "you" is put, once for the whole sentence."""

SECOND, FIRST, LAST = "second", "first", "last"
"""Where the finite verb stands."""

_CONJUNCTIONS: dict[str, Distribution] = {
    "because": (("weil", 0.75), ("da", 0.25)),
    "although": (("obwohl", 0.9), ("obgleich", 0.1)),
    "if": (("wenn", 0.9), ("falls", 0.1)),
    "when": (("als", 1.0),),
    "while": (("während", 1.0),),
    "before": (("bevor", 0.8), ("ehe", 0.2)),
    "that": (("dass", 1.0),),
    "whether": (("ob", 1.0),),
}


def _is_definite(nominal: NounPhrase | Name | Pronoun) -> bool:
    return not isinstance(nominal, NounPhrase) or nominal.determiner in declension.DEFINITE


class Clauses:
    """Builds the clauses of one sentence with one way of saying "you"."""

    def __init__(self, chooser: Chooser, address: str) -> None:
        self._chooser = chooser
        self._address = address

    def clause(
        self,
        clause: Clause,
        order: str,
        front: Piece | None = None,
        subject: list[Piece] | None = None,
    ) -> list[Piece]:
        """The wording of a clause.

        `front` fills the place before a finite verb in second position; without it the subject
        or a time adverbial does. `subject` replaces the clause's own subject (a relative or
        question pronoun); an empty list leaves it out.
        """
        rendering = self._chooser.pick(clause.german)
        person = declension.person(clause.subject, self._address)
        verbs = verb_frame(clause, rendering, person, self._chooser)
        time = clause.time
        if subject is None:
            subject = self._subject(clause.subject)
        if order == SECOND and front is None:
            if time is not None and self._time_leads(clause):
                front, time = time.text, None
            else:
                middle = self._middle(clause, rendering, person, time)
                return [*subject, verbs.finite, *middle, *verbs.close(False)]
        middle = [*subject, *self._middle(clause, rendering, person, time)]
        if order == LAST:
            return [*middle, *verbs.close(True)]
        lead: list[Piece] = [] if front is None else [front]
        return [*lead, verbs.finite, *middle, *verbs.close(False)]

    def _time_leads(self, clause: Clause) -> bool:
        odds = 0.85 if clause.time_first else 0.3
        return self._chooser.pick(((True, odds), (False, 1.0 - odds)))

    def _subject(self, subject: Nominal) -> list[Piece]:
        if isinstance(subject, Relative):
            noun = self._chooser.pick(subject.head.noun.german)
            entry = subject.head.noun._replace(german=((noun, 1.0),))
            head = subject.head._replace(noun=entry)
            pronoun = declension.relative_pronoun(noun, head.number)
            inner = self.clause(subject.clause._replace(subject=head), LAST, subject=[pronoun])
            return [declension.noun_phrase(head, "N", self._address), ",", *inner, ","]
        return [self._nominal(subject, "N")]

    def _nominal(self, nominal: NounPhrase | Name | Pronoun, case: str) -> Piece:
        if isinstance(nominal, Pronoun):
            return declension.pronoun(nominal.key, case, self._address)
        if isinstance(nominal, Name):
            return nominal.text
        return declension.noun_phrase(nominal, case, self._address)

    def _middle(
        self, clause: Clause, rendering: Rendering, person: int, time: Phrase | None
    ) -> list[Piece]:
        """Everything between the finite verb and the closing verbs, except the subject."""
        pronouns: list[Piece] = []
        dative: list[Piece] = []
        accusative: list[Piece] = []
        after: list[Piece] = []  # prepositional object
        definite = True
        if rendering.reflexive:
            pronouns.append(declension.reflexive(person, rendering.reflexive))
        obj, recipient = clause.obj, clause.recipient
        denied = False
        if obj is not None:
            if "+" in rendering.government:
                preposition, case = rendering.government.split("+")
                after.append(declension.prepositional(preposition, case, obj, self._address))
            else:
                case = rendering.government[-1]
                definite = _is_definite(obj)
                if clause.negative and _takes_kein(obj):
                    obj, denied = obj._replace(determiner="no"), True
                target = dative if case == "D" else accusative
                (pronouns if isinstance(obj, Pronoun) else target).append(self._nominal(obj, case))
        if recipient is not None:
            (pronouns if isinstance(recipient, Pronoun) else dative).append(
                self._nominal(recipient, "D")
            )
        adverbs = [p.text for p in (time, clause.frequency) if p is not None]
        ongoing = clause.tense == "progressive" and not (clause.time or clause.negative)
        if ongoing and self._chooser.pick(((False, 0.75), (True, 0.25))):
            adverbs.append((("gerade", 1.0),))
        negation: list[Piece] = ["nicht"] if clause.negative and not denied else []
        adjunct = [] if clause.adjunct is None else [self._place(clause.adjunct)]
        rest: list[Piece] = [*after, *([] if clause.place is None else [self._place(clause.place)])]
        rest += self._predicate(clause.predicate) if clause.predicate else []
        core = [*dative, *accusative]
        if definite or not accusative:
            early = adverbs
            if core and adverbs and definite and not ongoing:
                early = self._chooser.pick(((adverbs, 0.6), ([], 0.4)))
            late = [] if early else adverbs
            return [*pronouns, *early, *core, *late, *negation, *adjunct, *rest]
        swap = bool(adverbs and dative) and self._chooser.pick(((True, 0.5), (False, 0.5)))
        opening = [*dative, *adverbs] if swap else [*adverbs, *dative]
        if clause.adjunct is not None and _is_local(clause.adjunct):
            late_place = self._chooser.pick(((False, 0.5), (True, 0.5)))
            ending = [*accusative, *adjunct] if late_place else [*adjunct, *accusative]
        else:
            ending = [*adjunct, *accusative]
        return [*pronouns, *opening, *negation, *ending, *rest]

    def _place(self, where: Place | Phrase) -> Piece:
        return where.text if isinstance(where, Phrase) else declension.place(where, self._address)

    def _predicate(self, predicate: Predicate) -> list[Piece]:
        degree: list[Piece] = [] if predicate.degree is None else [predicate.degree.text]
        if predicate.adjective is None:
            return [*degree, predicate.text]
        options = predicate.adjective.german
        if predicate.standard is None:
            return [*degree, tuple((lemma, p) for (lemma, _, _), p in options)]
        than = self._nominal(predicate.standard, "N")
        return [*degree, tuple((more, p) for (_, _, more), p in options), "als", than]

    def imperative(self, clause: Clause) -> list[Piece]:
        """A polite request; "bitte" leads or follows the verb."""
        rendering = self._chooser.pick(clause.german)
        verb = rendering.verb
        person = declension.person(clause.subject, self._address)
        forms = {"du": verb.imperative, "ihr": verb.present[4], "Sie": f"{verb.present[5]} Sie"}
        form = forms[self._address]
        close = VerbFrame(form, [rendering.fixed] if rendering.fixed else [], verb.prefix)
        middle = self._middle(clause, rendering, person, None)
        pronouns = sum(
            (
                bool(rendering.reflexive),
                isinstance(clause.obj, Pronoun) and "+" not in rendering.government,
                isinstance(clause.recipient, Pronoun),
            )
        )
        leads = self._chooser.pick(((True, 0.6), (False, 0.4)))
        if leads:
            return ["bitte", form, *middle, *close.close(False)]
        return [form, *middle[:pronouns], "bitte", *middle[pronouns:], *close.close(False)]

    def conjunction(self, kind: str) -> Piece:
        """The wordings of a subordinating conjunction."""
        return _CONJUNCTIONS[kind]

    def referent(self, phrase: NounPhrase) -> tuple[NounPhrase, str]:
        """Settle which noun is used for a phrase; return it and the pronoun standing for it."""
        noun = self._chooser.pick(phrase.noun.german)
        fixed = phrase._replace(noun=phrase.noun._replace(german=((noun, 1.0),)))
        return fixed, {"m": "er", "f": "sie", "n": "es"}[noun.gender]

    def front(self, front: Distribution | NounPhrase) -> Piece:
        """A question word or phrase before the verb."""
        if isinstance(front, NounPhrase):
            return declension.noun_phrase(front, "A", self._address)
        return front


def _takes_kein(obj: NounPhrase | Name | Pronoun) -> TypeGuard[NounPhrase]:
    return isinstance(obj, NounPhrase) and obj.determiner in ("a", "")


def _is_local(adjunct: Place | Phrase) -> bool:
    return adjunct.local if isinstance(adjunct, Phrase) else adjunct.preposition != "mit"


def sentence(meaning: Sentence, address: bool, chooser: Chooser) -> list[Piece]:
    """The pieces of a German sentence; `address` says whether it addresses someone."""
    clauses = Clauses(chooser, chooser.pick(ADDRESS) if address else "du")
    kind, (first, *others) = meaning.kind, meaning.clauses
    if kind == "statement":
        return [*clauses.clause(first, SECOND), "."]
    if kind == "question":
        return [*clauses.clause(first, FIRST), "?"]
    if kind == "imperative":
        return [*clauses.imperative(first), "."]
    if kind == "who":
        return [*clauses.clause(first, SECOND, "wer", subject=[]), "?"]
    if kind == "wh":
        assert meaning.front is not None
        return [*clauses.clause(first, SECOND, clauses.front(meaning.front)), "?"]
    second = others[0]
    if kind == "and":
        return [*clauses.clause(first, SECOND), "und", *clauses.clause(second, SECOND), "."]
    if kind == "but":
        return [*clauses.clause(first, SECOND), ",", "aber", *clauses.clause(second, SECOND), "."]
    if kind == "said":
        # Verbs of saying and thinking also take a plain main clause.
        opening = clauses.clause(first, SECOND)
        if chooser.pick(((True, 0.8), (False, 0.2))):
            return [*opening, ",", "dass", *clauses.clause(second, LAST), "."]
        return [*opening, ",", *clauses.clause(second, SECOND), "."]
    if kind == "because it":
        assert meaning.referent is not None
        settled, pronoun = clauses.referent(meaning.referent)
        opening = clauses.clause(first._replace(obj=settled), SECOND)
        link = clauses.conjunction("because")
        return [*opening, ",", link, *clauses.clause(second, LAST, subject=[pronoun]), "."]
    conjunction, _, position = kind.partition(" ")
    link = clauses.conjunction(conjunction)
    if position == "first":
        # The subordinate clause is the first element, so the finite verb follows it.
        return [link, *clauses.clause(first, LAST), ",", *clauses.clause(second, FIRST), "."]
    return [*clauses.clause(first, SECOND), ",", link, *clauses.clause(second, LAST), "."]


def punctuate(text: str) -> str:
    """Attach punctuation to the word before it, drop doubled commas, capitalise the start."""
    text = text.replace(" , ,", ",").replace(" ,", ",").replace(", ?", "?").replace(", .", ".")
    text = text.replace(" .", ".").replace(" ?", "?").replace(",?", "?").replace(",.", ".")
    return text[0].upper() + text[1:]
