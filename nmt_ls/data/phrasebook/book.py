"""The phrasebook: English-German sentence pairs with every acceptable translation known."""

from __future__ import annotations

import hashlib
import math
import operator
import random
from collections.abc import Callable, Iterator, Sequence

from nmt_ls.data.phrasebook.cfg import Derivation
from nmt_ls.data.phrasebook.choice import Draw, wordings
from nmt_ls.data.phrasebook.english import read, write
from nmt_ls.data.phrasebook.german import punctuate, sentence
from nmt_ls.data.phrasebook.grammars import GRAMMARS, compiled
from nmt_ls.data.phrasebook.truth import Truth, entropy

SPLITS = {"train": 0.96, "validation": 0.02, "test": 0.02}
"""The share of a grammar's sentences in each split; a sentence's text decides its split."""

DRAWABLE = 0.25
"""The share of a split's sentences that can be asked for.

Sentences are drawn with natural frequencies until enough different ones have come up. Rare ones
would take for ever, so the last of them are out of reach.
"""

_BUCKETS = 10_000
_PUNCTUATION = ".,?"


def split_of(source: str) -> str:
    """The split an English sentence belongs to, whatever the seed."""
    digest = hashlib.blake2b(source.encode(), digest_size=8).digest()
    bucket = int.from_bytes(digest, "big") % _BUCKETS
    edge = 0
    for split, share in SPLITS.items():
        edge += round(share * _BUCKETS)
        if bucket < edge:
            return split
    raise AssertionError("the shares of the splits sum to 1")


def _stream(*key: object) -> random.Random:
    """A random number generator that depends on `key` alone, on every platform."""
    digest = hashlib.sha256(repr(key).encode()).digest()
    return random.Random(int.from_bytes(digest, "big"))


class Phrasebook:
    """A corpus of English sentences and their German translations.

    Sentences come from a grammar. Each has up to a few hundred correct translations with known
    probabilities, so that what a model should learn is known exactly.
    """

    def __init__(self, grammar: str = "full") -> None:
        """Take one of `GRAMMARS`; ValueError for any other name."""
        if grammar not in GRAMMARS:
            raise ValueError(f"unknown grammar {grammar!r}; there are {', '.join(GRAMMARS)}")
        self.grammar = grammar
        self._grammar = compiled(grammar)
        self._count = 0
        self._vocabulary: tuple[str, ...] = ()

    def count(self) -> int:
        """The exact number of different English sentences."""
        if not self._count:
            self._count = self._grammar.count()
        return self._count

    def lemmas(self) -> int:
        """The number of English dictionary words in use; names and number words left out."""
        return len(self._grammar.lemmas())

    def pairs(
        self, split: str, size: int, *, seed: int = 0, noise: float = 0.0
    ) -> Iterator[tuple[str, str]]:
        """Draw `size` pairs with different sources from a split.

        Each reference is drawn from p(target | source). `noise` is the probability with which
        each target word is replaced by another word of the language, in the training split only.
        The same arguments give the same pairs everywhere. ValueError if an argument is out of
        range or the split has too few sentences.
        """
        if split not in SPLITS:
            raise ValueError(f"unknown split {split!r}; there are {', '.join(SPLITS)}")
        if size < 0:
            raise ValueError(f"size must not be negative, got {size}")
        if not 0.0 <= noise <= 1.0:
            raise ValueError(f"noise must lie between 0 and 1, got {noise}")
        if noise and split != "train":
            raise ValueError("noise is for the training split only")
        most = int(self.count() * SPLITS[split] * DRAWABLE)
        if size > most:
            raise ValueError(
                f"the {split} split of the {self.grammar} grammar supplies at most {most} pairs, "
                f"{size} were asked for"
            )
        return self._pairs(split, size, operator.index(seed), noise)

    def _pairs(self, split: str, size: int, seed: int, noise: float) -> Iterator[tuple[str, str]]:
        # Sources, references and noise have streams of their own: the same sources come with
        # and without noise, and a longer list begins with the shorter one.
        sources = _stream("sources", self.grammar, split, seed)
        references = Draw(_stream("references", self.grammar, split, seed))
        corruption = _stream("noise", self.grammar, split, seed)
        seen: set[bytes] = set()
        while len(seen) < size:
            derivation = self._grammar.draw(sources)
            source = write(derivation.words)
            if split_of(source) != split:
                continue
            key = hashlib.blake2b(source.encode(), digest_size=16).digest()
            if key in seen:
                continue
            seen.add(key)
            pieces = sentence(derivation.meaning, derivation.address, references)
            target = punctuate(references.wording(pieces))
            yield source, self._corrupt(target, noise, corruption) if noise else target

    def _corrupt(self, target: str, noise: float, rng: random.Random) -> str:
        """Replace each word with probability `noise` by a different one; punctuation stays."""
        vocabulary = self._words()
        words = target.split()
        for index, word in enumerate(words):
            if rng.random() < noise:
                bare = word.rstrip(_PUNCTUATION)
                other = bare
                while other == bare:
                    other = vocabulary[int(rng.random() * len(vocabulary))]
                words[index] = other + word[len(bare) :]
        return " ".join(words)

    def _words(self) -> tuple[str, ...]:
        """German words of the grammar as they stand in text, in alphabetical order."""
        if not self._vocabulary:
            rng = _stream("vocabulary", self.grammar)
            draw = Draw(rng)
            words: set[str] = set()
            for _ in range(4000):
                derivation = self._grammar.draw(rng)
                pieces = sentence(derivation.meaning, derivation.address, draw)
                text = punctuate(draw.wording(pieces))
                words.update(word.rstrip(_PUNCTUATION) for word in text.split())
            self._vocabulary = tuple(sorted(words))
        return self._vocabulary

    def _derivation(self, source: str) -> Derivation:
        for words in read(source):
            for derivation in self._grammar.parse(words):
                if write(derivation.words) == source:
                    return derivation
        raise KeyError(f"not a sentence of the {self.grammar} grammar: {source!r}")

    def translations(self, source: str) -> tuple[tuple[str, float], ...]:
        """Every acceptable target with its probability, most probable first, ties by text.

        KeyError if `source` is not a sentence of this grammar.
        """
        derivation = self._derivation(source)
        listed = wordings(lambda chooser: sentence(derivation.meaning, derivation.address, chooser))
        merged: dict[str, float] = {}
        for text, probability in listed.items():
            target = punctuate(text)
            merged[target] = merged.get(target, 0.0) + probability
        return tuple(sorted(merged.items(), key=lambda item: (-item[1], item[0])))

    def best_translation(self, source: str) -> str:
        """The most probable target; KeyError as for `translations`."""
        return self.translations(source)[0][0]

    def log_probability(self, source: str, target: str) -> float:
        """log p(target | source) in nats; -inf if the target is not listed."""
        probability = dict(self.translations(source)).get(target, 0.0)
        return math.log(probability) if probability else -math.inf

    def truth(
        self,
        pairs: Sequence[tuple[str, str]],
        tokenize: Callable[[str], Sequence[int] | Sequence[str]],
    ) -> Truth:
        """What an ideal model would score on these pairs.

        `tokenize` splits a target into tokens without end-of-sentence and must be
        deterministic. ValueError if there are no pairs.
        """
        if not pairs:
            raise ValueError("the truth of no pairs is undefined")
        entropies, log_probabilities, expected = [], [], []
        tokens = 0
        for source, target in pairs:
            listed = self.translations(source)
            probability = dict(listed).get(target, 0.0)
            entropies.append(entropy(listed))
            log_probabilities.append(math.log(probability) if probability else -math.inf)
            expected.append(math.fsum(p * (len(tokenize(text)) + 1) for text, p in listed))
            tokens += len(tokenize(target)) + 1
        expected_tokens = math.fsum(expected)
        return Truth(
            nll_floor=math.fsum(entropies) / expected_tokens,
            nll_oracle=-math.fsum(log_probabilities) / tokens,
            tokens=tokens,
            expected_tokens=expected_tokens,
        )
