"""What a sentence means: the language-neutral values that join an English parse to its German.

The English rules build these values; the German side reads nothing else. All are immutable and
hashable, so the declined form of a noun phrase can be cached.
"""

from __future__ import annotations

from typing import NamedTuple, TypeVar

T = TypeVar("T")

Distribution = tuple[tuple[str, float], ...]
"""Alternative wordings of one stretch of text with their probabilities, which sum to 1."""


class Noun(NamedTuple):
    """One German noun. `gender` is m, f or n; `weak` marks the -n/-en declension (der Junge)."""

    lemma: str
    gender: str
    weak: bool
    genitive: str
    plural: str


class NounEntry(NamedTuple):
    """An English noun, its class (what verbs and adjectives may do with it) and German nouns.

    `single` nouns are not used in the plural: one has one father.
    """

    singular: str
    plural: str
    noun_class: str
    german: tuple[tuple[Noun, float], ...]
    sex: str
    professions: Distribution
    single: bool
    small: bool

    @property
    def mass(self) -> bool:
        """Whether the noun has no plural and no indefinite article."""
        return not self.plural


class Adjective(NamedTuple):
    """An English adjective; each German option is (predicative, attributive stem, comparative)."""

    english: str
    comparative: str
    classes: frozenset[str]
    german: tuple[tuple[tuple[str, str, str], float], ...]
    predicative_only: bool
    uses: frozenset[str]
    small: bool


class GermanVerb(NamedTuple):
    """The forms of a German verb, each indexed by person 0-5 (ich du er wir ihr sie).

    Forms leave out the separable `prefix`; `participle` and `infinitive` include it. The
    `imperative` is that for du.
    """

    infinitive: str
    prefix: str
    present: tuple[str, ...]
    preterite: tuple[str, ...]
    participle: str
    auxiliary: str
    imperative: str
    preterite_only: bool


class Rendering(NamedTuple):
    """A German verb with what it governs.

    `government` is "" (nothing), "A" accusative, "D" dative, "DA" both, or a preposition and
    its case such as "auf+A". `reflexive` is "", "A" or "D": the case of the reflexive pronoun.
    `fixed` is a phrase that always goes with the verb ("ins Bett").
    """

    verb: GermanVerb
    government: str
    reflexive: str
    fixed: str


class VerbEntry(NamedTuple):
    """An English verb in one frame: forms, allowed subjects, objects and adjuncts, German."""

    base: str
    third: str
    past: str
    participle: str
    ing: str
    subjects: frozenset[str]
    frame: str
    complements: tuple[str, ...]
    adjuncts: str
    german: tuple[tuple[Rendering, float], ...]
    stative: bool
    progressive: bool
    posture: bool
    wanting: bool
    small: bool


class NounPhrase(NamedTuple):
    """A noun with its determiner.

    `determiner` is an English key ("the", "a", "", "my", "this", "two" ...); `owner` is the
    possessor of "the teacher's ..." or a given name. `number` is "sg", "pl" or "mass".
    """

    determiner: str
    number: str
    adjective: Adjective | None
    noun: NounEntry
    owner: NounPhrase | Name | None = None


class Name(NamedTuple):
    """A person's given name, the same in both languages; `sex` is m or f."""

    text: str
    sex: str


class Pronoun(NamedTuple):
    """A personal pronoun by its English subject form (I, you, he, she, it, we, they)."""

    key: str


class Relative(NamedTuple):
    """A person with a subject relative clause: "the man who lives in Berlin"."""

    head: NounPhrase
    clause: Clause


Nominal = NounPhrase | Name | Pronoun | Relative


class Place(NamedTuple):
    """A German preposition, its case (D where, A whither; zu and nach always D), and a noun."""

    preposition: str
    case: str
    phrase: NounPhrase


class Phrase(NamedTuple):
    """A fixed adverbial, with its German wordings; `local` says it names a place."""

    text: Distribution
    local: bool = False


class Predicate(NamedTuple):
    """What follows a form of "to be".

    kind: "adjective", "comparative" (than `standard`), "profession", "age", "weather".
    `text` holds fixed wordings; `degree` is an adverb such as "sehr".
    """

    kind: str
    adjective: Adjective | None = None
    degree: Phrase | None = None
    standard: NounPhrase | Name | Pronoun | None = None
    text: Distribution = ()


class Clause(NamedTuple):
    """One clause.

    `tense` is present, progressive, past, perfect or future; `modal` an English modal key or "".
    `obj` is whatever the German verb's government makes of it: accusative, dative or
    prepositional object. `place` completes the verb (live in, put onto); `adjunct` is a free
    place, manner or companion. `time_first` is English word order. A questioned part is left out.
    """

    subject: Nominal
    german: tuple[tuple[Rendering, float], ...]
    tense: str
    modal: str = ""
    negative: bool = False
    obj: NounPhrase | Name | Pronoun | None = None
    recipient: NounPhrase | Name | Pronoun | None = None
    place: Place | Phrase | None = None
    adjunct: Phrase | Place | None = None
    time: Phrase | None = None
    time_first: bool = False
    frequency: Phrase | None = None
    predicate: Predicate | None = None


class Sentence(NamedTuple):
    """A sentence by its construction (`kind`) and clauses.

    `front` is a question word or phrase. `referent` is the noun phrase that "it" in the second
    clause stands for.
    """

    kind: str
    clauses: tuple[Clause, ...]
    front: Distribution | NounPhrase | None = None
    referent: NounPhrase | None = None
