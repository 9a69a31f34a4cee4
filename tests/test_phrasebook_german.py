"""The German of the built-in corpus, checked by hand for every phenomenon it covers."""

from __future__ import annotations

import math

import pytest

from nmt_ls.data.phrasebook import Phrasebook
from nmt_ls.data.phrasebook.conjugation import conjugate
from nmt_ls.data.phrasebook.declension import number_word
from nmt_ls.data.phrasebook.english import inflect, write
from nmt_ls.data.phrasebook.english import number_word as english_number
from nmt_ls.data.phrasebook.lexicon import german_verb, lexicon

# Source, number of translations, the most probable one and its probability. Read by a person:
# gender, case, adjective endings, word order and verb forms are as they should be.
CHECKED = [
    ("The man gives the child an apple.", 1, "Der Mann gibt dem Kind einen Apfel.", 1.0),
    ("He loves the small dog.", 1, "Er liebt den kleinen Hund.", 1.0),
    ("The small dog is sleeping in the kitchen.", 2, "Der kleine Hund schläft in der Küche.", 0.75),
    ("The cat ran into the garden.", 4, "Die Katze ist in den Garten gelaufen.", 0.42),
    ("The cup is standing on the table.", 2, "Die Tasse steht auf dem Tisch.", 0.75),
    ("She put the cup onto the table.", 2, "Sie hat die Tasse auf den Tisch gestellt.", 0.7),
    ("I helped the old neighbours.", 2, "Ich habe den alten Nachbarn geholfen.", 0.7),
    ("The student's book is new.", 2, "Das Buch des Studenten ist neu.", 0.85),
    ("The boss knows the students.", 1, "Der Chef kennt die Studenten.", 1.0),
    ("She does not have a car.", 2, "Sie hat kein Auto.", 0.7),
    ("They are not drinking milk.", 1, "Sie trinken keine Milch.", 1.0),
    ("She is not reading the newspaper.", 1, "Sie liest die Zeitung nicht.", 1.0),
    ("She is not sleeping.", 1, "Sie schläft nicht.", 1.0),
    ("Anna has read the letter.", 1, "Anna hat den Brief gelesen.", 1.0),
    ("The train has arrived.", 1, "Der Zug ist angekommen.", 1.0),
    ("He got up at half past seven.", 4, "Er ist um halb acht aufgestanden.", 0.49),
    ("You read a book.", 4, "Du hast ein Buch gelesen.", 0.5),
    ("We wanted to visit the museum.", 1, "Wir wollten das Museum besuchen.", 1.0),
    ("The boy cannot find his key.", 1, "Der Junge kann seinen Schlüssel nicht finden.", 1.0),
    ("You must not smoke.", 3, "Du darfst nicht rauchen.", 0.5),
    ("Tomorrow, the guests will arrive.", 4, "Morgen werden die Gäste ankommen.", 0.51),
    ("Every day, the cook buys fresh bread.", 4, "Jeden Tag kauft der Koch frisches Brot.", 0.68),
    ("He gave her a book yesterday.", 4, "Er hat ihr gestern ein Buch gegeben.", 0.49),
    ("Which coat is Anna wearing?", 2, "Welchen Mantel trägt Anna?", 0.75),
    ("Where did he put the newspaper?", 2, "Wohin hat er die Zeitung gelegt?", 0.7),
    ("When does the film begin?", 2, "Wann beginnt der Film?", 0.6),
    ("Why are the children crying?", 4, "Warum weinen die Kinder?", 0.525),
    ("Who is helping the old woman?", 2, "Wer hilft der alten Frau?", 0.75),
    ("What did you buy?", 4, "Was hast du gekauft?", 0.5),
    ("Please open the window.", 12, "Bitte öffne das Fenster.", 0.18),
    ("Please hurry.", 6, "Bitte beeil dich.", 0.3),
    ("Please help her.", 6, "Bitte hilf ihr.", 0.3),
    (
        "They stayed at home because it was cold.",
        8,
        "Sie sind zu Hause geblieben, weil es kalt war.",
        0.42,
    ),
    ("She works although she is ill.", 2, "Sie arbeitet, obwohl sie krank ist.", 0.9),
    (
        "If it is raining, we will stay at home.",
        8,
        "Wenn es regnet, werden wir zu Hause bleiben.",
        0.54,
    ),
    (
        "When I was ill, my mother had to cook.",
        1,
        "Als ich krank war, musste meine Mutter kochen.",
        1.0,
    ),
    ("While Anna is cooking, Peter is working.", 4, "Während Anna kocht, arbeitet Peter.", 0.5625),
    (
        "Before we sang, we ate soup.",
        8,
        "Bevor wir gesungen haben, haben wir Suppe gegessen.",
        0.392,
    ),
    ("Peter says that he is tired.", 2, "Peter sagt, dass er müde ist.", 0.8),
    ("I do not know whether she is happy.", 2, "Ich weiß nicht, ob sie glücklich ist.", 0.7),
    (
        "She bought the car because it was cheap.",
        16,
        "Sie hat das Auto gekauft, weil es billig war.",
        0.2205,
    ),
    ("Anna is singing, but Peter is working.", 4, "Anna singt, aber Peter arbeitet.", 0.5625),
    (
        "The woman who lives in Berlin works in the hospital.",
        2,
        "Die Frau, die in Berlin wohnt, arbeitet im Krankenhaus.",
        0.7,
    ),
    ("Maria is a doctor.", 2, "Maria ist Ärztin.", 0.85),
    ("My sister is twenty-one years old.", 1, "Meine Schwester ist einundzwanzig Jahre alt.", 1.0),
    ("The table costs 250 euros.", 1, "Der Tisch kostet 250 Euro.", 1.0),
    ("My uncle is older than your aunt.", 3, "Mein Onkel ist älter als deine Tante.", 0.5),
    (
        "He went to the station with his colleague.",
        2,
        "Er ist mit seinem Kollegen zum Bahnhof gegangen.",
        0.7,
    ),
    ("I remember the film.", 1, "Ich erinnere mich an den Film.", 1.0),
    ("We rested in the garden.", 4, "Wir haben uns im Garten ausgeruht.", 0.42),
    ("Two days ago, I saw three bears.", 4, "Vor zwei Tagen habe ich drei Bären gesehen.", 0.595),
    ("He is waiting for you.", 6, "Er wartet auf dich.", 0.375),
    ("I thank all the rich customers.", 1, "Ich danke allen reichen Kunden.", 1.0),
    ("He talks to some poor farmers.", 8, "Er spricht mit einigen armen Bauern.", 0.252),
    (
        "Max's sister has taken off the expensive coat.",
        2,
        "Max' Schwester hat den teuren Mantel ausgezogen.",
        0.8,
    ),
    ("An expensive watch belongs to him.", 2, "Eine teure Uhr gehört ihm.", 0.6),
    ("He eats an orange.", 2, "Er isst eine Orange.", 0.7),
    ("The horse eats an apple.", 1, "Das Pferd frisst einen Apfel.", 1.0),
    ("He has driven to Vienna.", 1, "Er ist nach Wien gefahren.", 1.0),
    ("He has driven the bus.", 1, "Er hat den Bus gefahren.", 1.0),
    ("We watched the film.", 4, "Wir haben uns den Film angeschaut.", 0.35),
    ("This boy feeds the bears.", 1, "Dieser Junge füttert die Bären.", 1.0),
]

# Every acceptable translation, written out with its probability.
COMPLETE = {
    "He gave her a book yesterday.": {
        "Er hat ihr gestern ein Buch gegeben.": 0.7 * 0.7,
        "Gestern hat er ihr ein Buch gegeben.": 0.3 * 0.7,
        "Er gab ihr gestern ein Buch.": 0.7 * 0.3,
        "Gestern gab er ihr ein Buch.": 0.3 * 0.3,
    },
    "I called him yesterday.": {
        "Ich habe ihn gestern angerufen.": 0.7 * 0.7,
        "Gestern habe ich ihn angerufen.": 0.3 * 0.7,
        "Ich rief ihn gestern an.": 0.7 * 0.3,
        "Gestern rief ich ihn an.": 0.3 * 0.3,
    },
    # Time before or after a known object, or in front.
    "He will read the book tomorrow.": {
        "Er wird morgen das Buch lesen.": 0.6 * 0.7 * 0.6,
        "Er wird das Buch morgen lesen.": 0.6 * 0.7 * 0.4,
        "Morgen wird er das Buch lesen.": 0.6 * 0.3,
        "Er liest morgen das Buch.": 0.4 * 0.7 * 0.6,
        "Er liest das Buch morgen.": 0.4 * 0.7 * 0.4,
        "Morgen liest er das Buch.": 0.4 * 0.3,
    },
    # "Your" is one choice of address for the whole sentence.
    "You found your key.": {
        "Du hast deinen Schlüssel gefunden.": 0.5,
        "Sie haben Ihren Schlüssel gefunden.": 0.3 * 0.7,
        "Sie fanden Ihren Schlüssel.": 0.3 * 0.3,
        "Ihr habt euren Schlüssel gefunden.": 0.2,
    },
    # The pronoun agrees with the noun that was chosen.
    "We are buying the car because it is new.": {
        f"Wir kaufen {now}{car}, {why} {it} neu ist.": p * q * r
        for now, p in (("", 0.75), ("gerade ", 0.25))
        for car, it, q in (("das Auto", "es", 0.7), ("den Wagen", "er", 0.3))
        for why, r in (("weil", 0.75), ("da", 0.25))
    },
    "She is going to the cinema.": {
        f"Sie geht {now}{into} Kino.": p * q
        for now, p in (("", 0.75), ("gerade ", 0.25))
        for into, q in (("ins", 0.85), ("in das", 0.15))
    },
    "Anna's car is red.": {
        "Annas Auto ist rot.": 0.7 * 0.8,
        "Annas Wagen ist rot.": 0.3 * 0.8,
        "Das Auto von Anna ist rot.": 0.7 * 0.2,
        "Der Wagen von Anna ist rot.": 0.3 * 0.2,
    },
    # Only a known object is negated by nicht.
    "He did not eat cheese yesterday.": {
        "Er hat gestern keinen Käse gegessen.": 0.7 * 0.7,
        "Gestern hat er keinen Käse gegessen.": 0.7 * 0.3,
        "Er aß gestern keinen Käse.": 0.3 * 0.7,
        "Gestern aß er keinen Käse.": 0.3 * 0.3,
    },
}


@pytest.fixture(scope="module")
def book() -> Phrasebook:
    return Phrasebook("full")


@pytest.mark.parametrize(("source", "number", "best", "probability"), CHECKED)
def test_checked_sentences(
    book: Phrasebook, source: str, number: int, best: str, probability: float
) -> None:
    listed = book.translations(source)
    assert len(listed) == number
    assert listed[0][0] == best
    assert listed[0][1] == pytest.approx(probability, abs=1e-4)
    assert book.best_translation(source) == best


@pytest.mark.parametrize("source", COMPLETE)
def test_complete_distributions(book: Phrasebook, source: str) -> None:
    listed = book.translations(source)
    assert dict(listed) == pytest.approx(COMPLETE[source])
    assert book.log_probability(source, listed[0][0]) == pytest.approx(math.log(listed[0][1]))


@pytest.mark.parametrize(
    ("infinitive", "present", "preterite", "participle", "imperative"),
    [
        ("machen", "mache machst macht machen macht machen", "machte", "gemacht", "mach"),
        ("arbeiten", "arbeite arbeitest arbeitet arbeiten arbeitet arbeiten", "arbeitete",
         "gearbeitet", "arbeite"),
        ("öffnen", "öffne öffnest öffnet öffnen öffnet öffnen", "öffnete", "geöffnet", "öffne"),
        ("zeichnen", "zeichne zeichnest zeichnet zeichnen zeichnet zeichnen", "zeichnete",
         "gezeichnet", "zeichne"),
        ("tanzen", "tanze tanzt tanzt tanzen tanzt tanzen", "tanzte", "getanzt", "tanz"),
        ("lächeln", "lächle lächelst lächelt lächeln lächelt lächeln", "lächelte", "gelächelt",
         "lächle"),
        ("spielen", "spiele spielst spielt spielen spielt spielen", "spielte", "gespielt", "spiel"),
        ("reparieren", "repariere reparierst repariert reparieren repariert reparieren",
         "reparierte", "repariert", "repariere"),
        ("besuchen", "besuche besuchst besucht besuchen besucht besuchen", "besuchte", "besucht",
         "besuch"),
        ("erinnern", "erinnere erinnerst erinnert erinnern erinnert erinnern", "erinnerte",
         "erinnert", "erinnere"),
        ("lesen", "lese liest liest lesen lest lesen", "las", "gelesen", "lies"),
        ("geben", "gebe gibst gibt geben gebt geben", "gab", "gegeben", "gib"),
        ("fahren", "fahre fährst fährt fahren fahrt fahren", "fuhr", "gefahren", "fahr"),
        ("können", "kann kannst kann können könnt können", "konnte", "gekonnt", None),
        ("sein", "bin bist ist sind seid sind", "war", "gewesen", None),
        ("haben", "habe hast hat haben habt haben", "hatte", "gehabt", None),
    ],
)  # fmt: skip
def test_german_verb_forms(
    infinitive: str, present: str, preterite: str, participle: str, imperative: str | None
) -> None:
    verb = german_verb(infinitive)
    assert verb.present == tuple(present.split())
    assert verb.preterite[0] == preterite
    assert verb.participle == participle
    assert imperative is None or verb.imperative == imperative


def test_separable_verb() -> None:
    verb = conjugate("aufmachen", "auf")
    assert (verb.prefix, verb.present[2], verb.participle) == ("auf", "macht", "aufgemacht")


@pytest.mark.parametrize(
    ("number", "english", "german"),
    [(2, "two", "zwei"), (12, "twelve", "zwölf"), (16, "sixteen", "sechzehn"),
     (17, "seventeen", "siebzehn"), (21, "twenty-one", "einundzwanzig"), (30, "thirty", "dreißig"),
     (66, "sixty-six", "sechsundsechzig"), (77, "seventy-seven", "siebenundsiebzig"),
     (99, "ninety-nine", "neunundneunzig")],
)  # fmt: skip
def test_number_words(number: int, english: str, german: str) -> None:
    assert english_number(number) == english
    assert number_word(number) == german


@pytest.mark.parametrize(
    ("base", "third", "past", "ing"),
    [("stop", "stops", "stopped", "stopping"), ("carry", "carries", "carried", "carrying"),
     ("wash", "washes", "washed", "washing"), ("visit", "visits", "visited", "visiting"),
     ("play", "plays", "played", "playing"), ("smile", "smiles", "smiled", "smiling"),
     ("look for", "looks for", "looked for", "looking for")],
)  # fmt: skip
def test_english_verb_forms(base: str, third: str, past: str, ing: str) -> None:
    assert inflect(base, "-", "-", "-") == (third, past, past, ing)


def test_english_article_and_punctuation() -> None:
    assert write(["a", "old", "man", "'s", "hat", "."]) == "An old man's hat."
    assert write(["today", ",", "a", "university", "."]) == "Today, a university."


def test_nouns_are_complete() -> None:
    for entry in lexicon().nouns:
        assert math.fsum(p for _, p in entry.german) == pytest.approx(1.0)
        for noun, _ in entry.german:
            assert noun.lemma[0].isupper()
            assert noun.gender in ("m", "f", "n")
            assert bool(noun.plural) == bool(entry.plural), entry.singular
            assert noun.gender == "f" or noun.weak or noun.genitive != "", entry.singular


def test_lexicon_names_resolve() -> None:
    words = lexicon()
    classes = {n.noun_class for n in words.nouns} | {n.singular for n in words.nouns}
    for verb in words.verbs:
        assert verb.subjects <= classes, verb.base
        if verb.frame in ("obj", "give", "put"):
            assert set(verb.complements) <= classes, verb.base
    for adjective in words.adjectives:
        assert adjective.classes <= classes, adjective.english
