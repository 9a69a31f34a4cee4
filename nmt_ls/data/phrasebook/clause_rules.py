"""English verb phrases and clauses as grammar rules.

A clause is a subject, a tense pattern and a verb phrase.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from nmt_ls.data.phrasebook.cfg import Parts, Rule, Symbol
from nmt_ls.data.phrasebook.lexicon import PERSON, Lexicon, german_verb
from nmt_ls.data.phrasebook.meaning import (
    Clause,
    Distribution,
    Name,
    Nominal,
    NounEntry,
    NounPhrase,
    Phrase,
    Place,
    Predicate,
    Pronoun,
    Rendering,
    VerbEntry,
)
from nmt_ls.data.phrasebook.noun_rules import AGREEMENTS, constant
from nmt_ls.data.phrasebook.patterns import Pattern, be, do

_IT = Pronoun("it")
_PARTICLES = (" up", " on", " off", " away")
_SEIN = ((Rendering(german_verb("sein"), "", "", ""), 1.0),)


class Complement(NamedTuple):
    """What a verb takes along."""

    obj: NounPhrase | Name | Pronoun | None = None
    recipient: NounPhrase | Name | Pronoun | None = None
    place: Place | Phrase | None = None
    adjunct: Place | Phrase | None = None


class ClauseRules:
    """Rules for verb phrases and clauses; each method writes out one symbol.

    `patterns` are the tense patterns in use and `subjects` the classes that can be subjects;
    `relative` and `clock` admit relative clauses and times of day.
    """

    def __init__(
        self, lexicon: Lexicon, patterns: tuple[Pattern, ...], relative: bool, clock: bool
    ) -> None:
        self.lexicon = lexicon
        self._relative = relative
        self._clock = clock
        self._patterns = patterns
        used = {c for verb in lexicon.verbs for c in verb.subjects}
        self.subjects = tuple(sorted(used))

    def vp(self, form: str, subject: str, mode: str, agreement: str) -> list[Rule]:
        """A verb with its complements.

        Modes: "full" (with adjuncts), "often" (full, and something one does), "bare" (without
        adjuncts), "deed" (bare, and something one does), "denied" followed by one of these (the
        same under negation), "what", "which:CLASS" and "want:CLASS" (object left out), "where"
        and "whither" (place left out).
        """
        rules: list[Rule] = []
        listed: set[str] = set()
        for verb in self.lexicon.verbs:
            word = _form(verb, form)
            if not word or subject not in verb.subjects or not _allows(verb, mode):
                continue
            # A verb is listed once per kind of object; without the object it is the same verb.
            if mode == "what" and verb.base in listed:
                continue
            listed.add(verb.base)
            who = agreement if agreement in ("I", "we", "you") else "3"
            if verb.frame == "obj" and verb.base.endswith(_PARTICLES):
                who = ""  # a pronoun would come before the particle: "pick her up"
            comp: Symbol = ("complement", verb.frame, verb.complements, verb.adjuncts, mode, who)

            def build(c: Complement, verb: VerbEntry = verb) -> Clause:
                return Clause(_IT, verb.german, "present", "", False, *c)

            rules.append(
                Rule((*word.split(), comp), build, 1.0, len(verb.german), lemmas=(verb.base,))
            )
        return rules

    def complement(
        self, frame: str, targets: tuple[str, ...], adjuncts: str, mode: str, agreement: str
    ) -> list[Rule]:
        """Objects and places for a verb frame."""
        denied = mode.startswith("denied")
        determiners = "denied" if denied else "any"
        obj: Symbol = ("object", targets, determiners, agreement)
        if mode == "what" or ":" in mode or (mode == "where" and frame == "loc"):
            return [Rule((), constant(Complement()))]
        if mode == "whither":
            if frame == "put":
                return [Rule((obj,), lambda o: Complement(o))]
            return [Rule((), constant(Complement()))]
        core: list[Rule] = []
        if frame == "-":
            core.append(Rule((), constant(Complement())))
        elif frame == "obj":
            core.append(Rule((obj,), lambda o: Complement(o)))
        elif frame == "give":
            recipient: Symbol = ("object", PERSON, "known", agreement)
            given: Symbol = ("object", targets, "given", "")
            core.append(Rule((recipient, given), lambda r, o: Complement(o, r)))
        elif frame in ("dir", "loc"):
            where: Symbol = ("direction" if frame == "dir" else "location", "".join(targets))
            core.append(Rule((where,), lambda p: Complement(None, None, p)))
        elif frame == "put":
            core.append(Rule((obj, ("direction", "f2")), lambda o, p: Complement(o, None, p)))
        elif frame == "game":
            core.append(
                Rule((("noun", "game", "mass"),), lambda n: Complement(_activity(n, "mass")))
            )
        elif frame == "instrument":
            noun: Symbol = ("noun", "instrument", "sg")
            core.append(Rule(("the", noun), lambda n: Complement(_activity(n, "sg"))))
        if mode not in ("full", "often", "denied", "denied often") or not adjuncts:
            return core
        adjunct: Symbol = ("adjunct", adjuncts, agreement)
        more = []
        for rule in core:

            def build(*values: Any, base: Rule = rule) -> Complement:
                return base.build(*values[:-1])._replace(adjunct=values[-1])

            more.append(rule._replace(parts=(*rule.parts, adjunct), build=build, weight=0.6))
        return core + more

    def clause(self, kind: str, group: str, style: str) -> list[Rule]:
        """Statements, or questions ("question": verb first; other kinds: the gap's mode).

        `group` limits the tense; `style` is "main" (time and adjuncts), "plain" (neither), "deed"
        (neither; something people do), "positive" (a deed not
        negated), "scene" (a deed with adjuncts, without time) or "gap" (neither, in a
        question about the time or reason).
        """
        rules: list[Rule] = []
        for pattern in self._patterns:
            if group not in ("any", pattern.group, pattern.tense):
                continue
            if kind != "statement" and not pattern.question:
                continue
            if style == "positive" and pattern.negative:
                continue
            for subject in PERSON if style in ("deed", "positive", "scene") else self.subjects:
                if subject not in self.subjects:
                    continue
                for agreement in AGREEMENTS:
                    if agreement in ("I", "we", "you") and subject != "adult":
                        continue
                    rules += self._clause(pattern, kind, style, subject, agreement)
        return rules

    def _clause(
        self, pattern: Pattern, kind: str, style: str, noun_class: str, agreement: str
    ) -> Iterator[Rule]:
        main = style == "main"
        form, auxiliary = pattern.form, pattern.auxiliary(agreement)
        if kind != "statement" and not auxiliary:
            auxiliary = ("did",) if pattern.tense == "past" else do(agreement)
            form = "bare"
        elif form == "finite":
            form = "third" if agreement == "3sg" else "plain"
        bare = "deed" if style in ("deed", "positive", "gap") else "bare"
        mode = {"statement": "full" if main else bare, "question": bare}.get(kind, kind)
        if pattern.negative:
            mode = "denied" if main else f"denied {bare}"
        if style == "scene":
            mode = "denied often" if pattern.negative else "often"
        determiners = "any" if kind == "statement" and not pattern.negative else "known"
        # A comma-enclosed relative clause is only for plain main statements.
        relative = self._relative and main and kind == "statement"
        subject: Symbol = ("subject", noun_class, agreement, determiners, False, relative)
        vp: Symbol = ("vp", form, noun_class, mode, agreement)
        extra = pattern.extra
        parts: Parts = (
            (subject, *auxiliary, *extra, vp)
            if kind == "statement"
            else (*auxiliary, subject, *extra, vp)
        )
        # People talk about people.
        weight = pattern.weight * {"adult": 5.0, "kin": 4.0, "kid": 2.5}.get(noun_class, 0.6)
        weight *= 2.0 if agreement == "3sg" else 0.7
        if kind != "statement" and agreement in ("I", "we") and not pattern.modal:
            weight *= 0.1  # people rarely ask what they are doing themselves
        settings: dict[str, Any] = {
            "tense": pattern.tense,
            "modal": pattern.modal,
            "negative": pattern.negative,
        }

        def build(who: Nominal, verb: Clause) -> Clause:
            return verb._replace(subject=who, **settings)

        def timed(who: Nominal, verb: Clause, time: Phrase) -> Clause:
            return verb._replace(subject=who, time=time, **settings)

        def time_first(time: Phrase, who: Nominal, verb: Clause) -> Clause:
            return verb._replace(subject=who, time=time, time_first=True, **settings)

        def often(who: Nominal, frequency: Phrase, verb: Clause) -> Clause:
            return verb._replace(subject=who, frequency=frequency, **settings)

        lemmas = tuple(pattern.modal.split()) + (("not",) if pattern.negative else ())
        load = pattern.load
        yield Rule(parts, build, weight, load, lemmas=lemmas)
        if (main or (kind == "question" and style != "gap")) and pattern.time:
            time: Symbol = ("time", pattern.time, self._clock and pattern.time != "now" and main)
            # Time first or inside, before or after the object.
            more = load * (4 if kind == "statement" else 2)
            yield Rule((*parts, time), timed, weight * 0.5, more, lemmas=lemmas)
            if kind == "statement":
                yield Rule((time, ",", *parts), time_first, weight * 0.12, more, lemmas=lemmas)
        if main and pattern.frequency and kind == "statement":
            group = "freq" if pattern.tense == "present" else "done"
            adverb: Symbol = ("adverb", group)
            deed: Symbol = ("vp", form, noun_class, "often", agreement)
            yield Rule((*parts[:-1], adverb, deed), often, weight * 0.5, load * 2, lemmas=lemmas)

    def copula(self, tense: str, kind: str, style: str) -> list[Rule]:
        """Being tired, old, expensive; kind "statement" or "question".

        Style "state" is for people and reasons to act, "predicative" for everything.
        """
        rules: list[Rule] = []
        classes = {c for adjective in self.lexicon.adjectives for c in adjective.classes}
        for noun_class in sorted(classes):
            if style == "state" and noun_class not in PERSON:
                continue
            for agreement in AGREEMENTS:
                if agreement in ("I", "we", "you") and noun_class != "adult":
                    continue
                rules += self._copula(tense, kind, noun_class, agreement, style)
        return rules

    def _copula(
        self, tense: str, kind: str, noun_class: str, agreement: str, use: str
    ) -> Iterator[Rule]:
        subject: Symbol = ("subject", noun_class, agreement, "known", True, False)
        adjective: Symbol = ("adjective", noun_class, use)
        degree: Symbol = ("adverb", "degree")
        verb = be(agreement, tense)

        def build(who: Nominal, *rest: Any) -> Clause:
            predicate = Predicate("adjective", rest[-1], rest[0] if len(rest) == 2 else None)
            return to_be(who, tense, predicate)

        def negated(who: Nominal, *rest: Any) -> Clause:
            return build(who, *rest)._replace(negative=True)

        weight = 1.0 if noun_class in PERSON else 0.6
        weight *= 1.0 if agreement == "3sg" else 0.4
        if kind == "question":
            yield Rule((*verb, subject, adjective), build, weight, lemmas=("be",))
            return
        yield Rule((subject, *verb, adjective), build, weight, lemmas=("be",))
        yield Rule((subject, *verb, degree, adjective), build, 0.4 * weight, lemmas=("be",))
        yield Rule((subject, *verb, "not", adjective), negated, 0.3 * weight, lemmas=("be",))


def _form(verb: VerbEntry, form: str) -> str:
    """The verb's form, or "" where it is not used.

    "base" follows modals (not with stative verbs), "bare" follows do. A past that looks like the
    present (read, put, cut) leaves the verb without a plain present: "they read" is past.
    """
    if form == "plain":
        return "" if verb.past == verb.base else verb.base
    if form in ("base", "participle") and (verb.stative or verb.posture):
        return ""
    if form == "ing" and not verb.progressive:
        return ""
    return getattr(verb, "base" if form == "bare" else form)


def _allows(verb: VerbEntry, mode: str) -> bool:
    if mode.endswith(("often", "deed")):
        return not verb.stative and not verb.posture
    accusative = all(r.government == "A" for r, _ in verb.german)
    if mode == "what":
        things = set(verb.complements).isdisjoint((*PERSON, "animal"))
        return verb.frame == "obj" and accusative and things
    use, colon, noun_class = mode.partition(":")
    if colon:
        wanted = use == "which" or verb.wanting
        return verb.frame == "obj" and accusative and noun_class in verb.complements and wanted
    if mode == "where":
        return verb.frame == "loc" or (
            verb.frame == "obj" and bool(set(verb.adjuncts) & set("hpok"))
        )
    if mode == "whither":
        return verb.frame in ("dir", "put")
    return True


def _activity(noun: NounEntry, number: str) -> NounPhrase:
    return NounPhrase("activity", number, None, noun)


def to_be(who: Nominal, tense: str, predicate: Predicate) -> Clause:
    """A clause with a form of sein."""
    return Clause(who, _SEIN, tense, predicate=predicate)


def fixed_predicate(who: Nominal, tense: str, text: Distribution) -> Clause:
    """A form of sein with a fixed predicate: "ist kalt", "ist zwölf Jahre alt"."""
    return to_be(who, tense, Predicate("fixed", text=text))
