"""A finite context-free grammar: draw, parse, count and enumerate its sentences.

Each rule builds a meaning from the meanings of its parts. A rule also carries a `load`, an upper
bound on the ways its part can be said in the target language, and whether it addresses someone
("you"), which brings in the choice of address once for the whole sentence. Sentences whose
product of loads exceeds a limit are left out of the language, which bounds every list of
translations; counting respects the limit.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from typing import Any, NamedTuple

Symbol = tuple[Any, ...]
"""A nonterminal: a name and its features, such as ("noun", "person", "sg")."""

ADDRESS_LOAD = 3
"""Ways to address someone in German: du, Sie, ihr."""

Parts = tuple[str | Symbol, ...]
"""The right-hand side of a rule: words and symbols."""


class Rule(NamedTuple):
    """One way to write a symbol: literal words (str) and further symbols, in order.

    `build` receives the meanings of the symbols; `weight` is the relative frequency in draws;
    `lemmas` are the dictionary words the rule adds.
    """

    parts: Parts
    build: Callable[..., Any]
    weight: float = 1.0
    load: int = 1
    address: bool = False
    lemmas: tuple[str, ...] = ()


class Derivation(NamedTuple):
    """A sentence's words, its meaning, whether it addresses someone, and its load.

    It has at most `load` translations, but for where "gerade" stands and for "ans Kind" beside
    "an das Kind" where a verb asks for the preposition: those are no part of it.
    """

    words: tuple[str, ...]
    meaning: Any
    address: bool
    load: int


class _Compiled(NamedTuple):
    parts: tuple[Any, ...]
    build: Callable[..., Any]
    load: int
    address: bool
    lemmas: tuple[str, ...]


class _Node:
    """A compiled symbol: its usable rules, cumulative draw weights and first-word index."""

    __slots__ = ("by_word", "cumulative", "empty", "first", "others", "rules", "total")

    def __init__(self) -> None:
        self.rules: list[_Compiled] = []
        self.by_word: dict[str, list[_Compiled]] = {}
        self.others: dict[int, tuple[_Node, list[_Compiled]]] = {}
        self.empty: list[_Compiled] = []
        self.first: set[str] = set()
        self.cumulative: list[float] = []
        self.total = 0.0


class ContextFreeGrammar:
    """A grammar given by a start symbol and a function that writes out any symbol's rules.

    `limit` is the largest product of loads a sentence may have.
    """

    def __init__(
        self, start: Symbol, expand: Callable[[Symbol], Sequence[Rule]], limit: int
    ) -> None:
        self._expand = expand
        self._limit = limit
        self._nodes: dict[Symbol, _Node] = {}
        self._start = self._compile(start)
        self._counts: dict[int, Counter[tuple[bool, int]]] = {}

    def _compile(self, symbol: Symbol) -> _Node:
        node = self._nodes.get(symbol)
        if node is not None:
            return node
        node = _Node()
        weights: list[float] = []
        for rule in self._expand(symbol):
            parts = tuple(p if isinstance(p, str) else self._compile(p) for p in rule.parts)
            # A symbol no noun or verb of the lexicon fits has no rules; drop what needs it.
            if rule.weight <= 0.0 or any(isinstance(p, _Node) and not p.rules for p in parts):
                continue
            compiled = _Compiled(parts, rule.build, rule.load, rule.address, rule.lemmas)
            node.rules.append(compiled)
            weights.append(rule.weight)
            if not parts:
                node.empty.append(compiled)
            elif isinstance(parts[0], str):
                node.by_word.setdefault(parts[0], []).append(compiled)
                node.first.add(parts[0])
            else:
                child = parts[0]
                if child.empty:
                    raise ValueError("the first part of a rule may not be empty")
                if id(child) not in node.others:
                    node.others[id(child)] = (child, [])
                    node.first |= child.first
                node.others[id(child)][1].append(compiled)
        node.cumulative = list(accumulate(weights))
        node.total = node.cumulative[-1] if weights else 0.0
        self._nodes[symbol] = node
        return node

    def _total(self, load: int, address: bool) -> int:
        """The load of a sentence from the product of its rules' loads."""
        return load * (ADDRESS_LOAD if address else 1)

    def draw(self, rng: random.Random) -> Derivation:
        """Draw a sentence rule by rule with the rules' weights, again until it fits."""
        while True:
            words: list[str] = []
            state = [1, False]
            meaning = self._draw(self._start, rng.random, words, state)
            address = bool(state[1])
            load = self._total(state[0], address)
            if load <= self._limit:
                return Derivation(tuple(words), meaning, address, load)

    def _draw(
        self, node: _Node, uniform: Callable[[], float], words: list[str], state: list[int]
    ) -> Any:
        rules = node.rules
        if len(rules) == 1:
            rule = rules[0]
        else:
            index = bisect_right(node.cumulative, uniform() * node.total)
            rule = rules[min(index, len(rules) - 1)]  # rounding may reach the very end
        values = []
        for part in rule.parts:
            if type(part) is str:
                words.append(part)
            else:
                values.append(self._draw(part, uniform, words, state))
        state[0] *= rule.load
        if rule.address:
            state[1] = True
        return rule.build(*values)

    def parse(self, words: Sequence[str]) -> list[Derivation]:
        """Every derivation of `words` in the language; a well-made grammar has at most one."""
        memo: dict[tuple[int, int], list[tuple[int, Any, int, bool]]] = {}
        found = self._parse(self._start, words, 0, memo)
        return [
            Derivation(tuple(words), meaning, address, self._total(load, address))
            for end, meaning, load, address in found
            if end == len(words) and self._total(load, address) <= self._limit
        ]

    def _parse(
        self,
        node: _Node,
        words: Sequence[str],
        start: int,
        memo: dict[tuple[int, int], list[tuple[int, Any, int, bool]]],
    ) -> list[tuple[int, Any, int, bool]]:
        key = (id(node), start)
        known = memo.get(key)
        if known is not None:
            return known
        found: list[tuple[int, Any, int, bool]] = []
        first = words[start] if start < len(words) else ""
        for rule in node.empty:
            found.append((start, rule.build(), rule.load, rule.address))
        for rule in node.by_word.get(first, ()):
            self._follow(rule, words, [(start + 1, (), rule.load, rule.address)], memo, found)
        for child, rules in node.others.values():
            if first not in child.first:
                continue
            opened = self._parse(child, words, start, memo)
            if not opened:
                continue
            for rule in rules:
                states = [
                    (end, (value,), load * rule.load, address or rule.address)
                    for end, value, load, address in opened
                ]
                self._follow(rule, words, states, memo, found)
        memo[key] = found
        return found

    def _follow(
        self,
        rule: _Compiled,
        words: Sequence[str],
        states: list[tuple[int, tuple[Any, ...], int, bool]],
        memo: dict[tuple[int, int], list[tuple[int, Any, int, bool]]],
        found: list[tuple[int, Any, int, bool]],
    ) -> None:
        """Match a rule's parts after the first and add what the whole rule means to `found`."""
        for part in rule.parts[1:]:
            if isinstance(part, str):
                states = [
                    (at + 1, values, load, address)
                    for at, values, load, address in states
                    if at < len(words) and words[at] == part
                ]
            else:
                states = [
                    (end, (*values, value), load * more, address or you)
                    for at, values, load, address in states
                    for end, value, more, you in self._parse(part, words, at, memo)
                ]
            if not states:
                return
        for at, values, load, address in states:
            found.append((at, rule.build(*values), load, address))

    def count(self) -> int:
        """The exact number of derivations in the language."""
        return sum(
            n
            for (address, load), n in self._count(self._start).items()
            if self._total(load, address) <= self._limit
        )

    def _count(self, node: _Node) -> Counter[tuple[bool, int]]:
        """Number of derivations of a symbol by (addresses someone, product of loads)."""
        known = self._counts.get(id(node))
        if known is not None:
            return known
        # Rules that differ only in their words (all nouns, say) count together.
        groups: Counter[tuple[tuple[int, ...], int, bool]] = Counter()
        nodes: dict[int, _Node] = {}
        for rule in node.rules:
            children = [p for p in rule.parts if isinstance(p, _Node)]
            nodes.update((id(child), child) for child in children)
            groups[tuple(sorted(map(id, children))), rule.load, rule.address] += 1
        result: Counter[tuple[bool, int]] = Counter()
        for (keys, load, address), times in groups.items():
            product: Counter[tuple[bool, int]] = Counter({(address, load): times})
            for key in keys:
                step: Counter[tuple[bool, int]] = Counter()
                for (left_you, left), n in product.items():
                    for (right_you, right), m in self._count(nodes[key]).items():
                        if left * right <= self._limit:
                            step[left_you or right_you, left * right] += n * m
                product = step
            result.update(product)
        self._counts[id(node)] = result
        return result

    def sentences(self) -> Iterator[Derivation]:
        """Every derivation of the language, one by one. Only for small grammars."""
        for words, meaning, load, address in self._sentences(self._start):
            if self._total(load, address) <= self._limit:
                yield Derivation(words, meaning, address, self._total(load, address))

    def _sentences(self, node: _Node) -> Iterator[tuple[tuple[str, ...], Any, int, bool]]:
        for rule in node.rules:
            states: list[tuple[tuple[str, ...], tuple[Any, ...], int, bool]]
            states = [((), (), rule.load, rule.address)]
            for part in rule.parts:
                if isinstance(part, str):
                    states = [((*w, part), v, load, you) for w, v, load, you in states]
                else:
                    children = list(self._sentences(part))
                    states = [
                        (w + more, (*v, value), load * times, you or address)
                        for w, v, load, you in states
                        for more, value, times, address in children
                    ]
            for words, values, load, address in states:
                yield words, rule.build(*values), load, address

    def lemmas(self) -> set[str]:
        """The dictionary words of every usable rule."""
        return {
            lemma for node in self._nodes.values() for rule in node.rules for lemma in rule.lemmas
        }
