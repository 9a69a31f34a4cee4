"""Minimum Bayes risk decoding: of some candidates, the one that agrees best with all of them.

The utility is sentence-level chrF or BLEU. Every candidate is scored against every other, so both
are computed here for all pairs at once; the numbers are sacreBLEU's.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, Int, Integer
from sacrebleu.tokenizers.tokenizer_13a import Tokenizer13a
from scipy.sparse import csr_array

Utility = Literal["chrf", "bleu"]

_CHRF_ORDER = 6
_CHRF_BETA = 2
_BLEU_ORDER = 4
_TOKENIZER = Tokenizer13a()  # one for all calls: it remembers what it has tokenised


def sentence_chrf_matrix(
    hypotheses: Sequence[str], references: Sequence[str]
) -> Float[np.ndarray, "H R"]:
    """chrF2 of every hypothesis against every reference.

    Character 1- to 6-grams without white space, β = 2 (Popović 2015, "chrF: character n-gram
    F-score for automatic MT evaluation"). As in sacreBLEU, `CHRF().sentence_score(h, [r]).score`,
    precision and recall are averaged over the orders that both strings are long enough for; a
    string without any character scores 0, even against itself.

    Args:
      hypotheses: H strings, detokenised.
      references: R strings, detokenised.

    Returns:
      float64 percent.

    Raises:
      ValueError: a bare string in place of a list of strings.
    """
    texts, h, r = _distinct(hypotheses, references)
    lines = ["".join(text.split()) for text in texts]
    # Fixed-width code points. Half a surrogate pair is a character too: sacreBLEU counts it.
    symbols = np.frombuffer("".join(lines).encode("utf-32-le", "surrogatepass"), "<u4")
    lengths = np.array([len(line) for line in lines], np.int64)

    precision = np.zeros((len(h), len(r)))
    recall = np.zeros((len(h), len(r)))
    for n, matched in enumerate(_matches(symbols, lengths, h, r, _CHRF_ORDER), 1):
        grams = np.maximum(lengths - n + 1, 1)  # where there are none, nothing is matched either
        precision += matched / grams[h][:, None]
        recall += matched / grams[r]
    orders = np.clip(np.minimum(lengths[h][:, None], lengths[r]), 1, _CHRF_ORDER)
    precision /= orders
    recall /= orders
    factor = _CHRF_BETA**2
    below = factor * precision + recall
    return 100 * ((1 + factor) * precision * recall / np.where(below > 0, below, 1))


def sentence_bleu_matrix(
    hypotheses: Sequence[str], references: Sequence[str]
) -> Float[np.ndarray, "H R"]:
    """Sentence-level BLEU of every hypothesis against every reference.

    As sacreBLEU's `BLEU(effective_order=True).sentence_score(h, [r]).score` (Post 2018): 13a
    tokeniser; the k-th order without a match counts as 1/2^k matches ("exp" smoothing, Chen and
    Cherry 2014); orders that the hypothesis is too short for are left out; 0 without any match.
    Arguments, unit and errors are those of `sentence_chrf_matrix`.
    """
    texts, h, r = _distinct(hypotheses, references)
    lines = [_TOKENIZER(text.rstrip()).split() for text in texts]
    ids: dict[str, int] = {}
    symbols = np.array([ids.setdefault(w, len(ids)) for line in lines for w in line], np.int64)
    lengths = np.array([len(line) for line in lines], np.int64)
    of_h, of_r = lengths[h][:, None], lengths[r]  # [H, 1], [R]

    log_precision = np.zeros((len(h), len(r)))
    smoothing = np.ones((len(h), len(r)))
    any_match = np.zeros((len(h), len(r)), bool)
    for n, matched in enumerate(_matches(symbols, lengths, h, r, _BLEU_ORDER), 1):
        counted = of_h >= n
        missed = counted & (matched == 0)
        smoothing[missed] *= 2
        above = np.where(missed, 1 / smoothing, matched)
        log_precision += np.log(
            np.divide(100 * above, of_h - n + 1, out=np.ones_like(above), where=counted)
        )
        any_match |= matched > 0
    brevity = np.exp(np.minimum(0, 1 - of_r / np.maximum(of_h, 1)))
    bleu = brevity * np.exp(log_precision / np.clip(of_h, 1, _BLEU_ORDER))
    return np.where(any_match, bleu, 0.0)


_MATRICES = {"chrf": sentence_chrf_matrix, "bleu": sentence_bleu_matrix}


class Choice(NamedTuple):
    """The chosen candidate, and what every candidate was worth."""

    index: int  # type: ignore[assignment]  # hides tuple.index, which no one needs here
    """Of the candidate with the greatest expected utility; the earliest of equals."""
    expected: Float[np.ndarray, "N"]
    """Expected utility of each candidate in percent."""


@dataclass(frozen=True)
class MinimumBayesRisk:
    """Chooses the candidate with the greatest expected utility.

    The candidates are their own pseudo-references: for samples from a model this estimates the
    expectation under the model (Eikema and Aziz 2020, "Is MAP decoding all you need?", arXiv
    2005.10283; with better utilities, Freitag et al. 2022, "High quality rather than high model
    probability", TACL 10). Each is also compared with itself, as is usual over samples.
    """

    utility: Utility = "chrf"
    """Sentence-level chrF2 or BLEU, as sacreBLEU computes them."""

    def __post_init__(self) -> None:
        if self.utility not in _MATRICES:
            raise ValueError(f"no utility {self.utility!r}")

    def choose(
        self,
        candidates: Sequence[str],
        weights: Sequence[float] | Float[np.ndarray, "N"] | None = None,
    ) -> Choice:
        """The candidate that is expected to agree best with all of them.

        Args:
          candidates: N translations, detokenised. The same one drawn k times counts k times, and
            is compared only once.
          weights: N probabilities of the candidates as pseudo-references, in any unit; None
            gives all the same.

        Raises:
          ValueError: no candidates, a bare string in place of them, or weights that are not one
            finite number from 0 each or are all 0.
        """
        if not candidates:
            raise ValueError("no candidates to choose from")
        given = np.ones(len(candidates)) if weights is None else np.asarray(weights, np.float64)
        if given.shape != (len(candidates),):
            raise ValueError(f"{len(candidates)} candidates but weights of shape {given.shape}")
        if not (np.isfinite(given).all() and (given >= 0).all() and given.any()):
            raise ValueError("weights must be finite, not negative, and not all 0")
        distinct, rows, _ = _distinct(candidates, ())
        mass = np.bincount(rows, given)
        terms = _MATRICES[self.utility](distinct, distinct) * mass
        # Correctly rounded sums: candidates with the same terms in another order must tie.
        sums = np.array([math.fsum(row) for row in terms])
        expected = (sums / math.fsum(mass))[rows]
        return Choice(int(expected.argmax()), expected)


def _distinct(
    first: Sequence[str], second: Sequence[str]
) -> tuple[list[str], Int[np.ndarray, "F"], Int[np.ndarray, "S"]]:
    """The different strings of both, by first appearance, and where in them each string is."""
    for texts in (first, second):
        if isinstance(texts, str):  # would be taken for a list of its characters
            raise ValueError(f"a list of strings is needed, not one string: {texts!r}")
    place: dict[str, int] = {}
    for text in (*first, *second):
        place.setdefault(text, len(place))
    rows = [np.array([place[text] for text in texts], np.int64) for texts in (first, second)]
    return list(place), rows[0], rows[1]


def _matches(
    symbols: Integer[np.ndarray, "N"],
    lengths: Int[np.ndarray, "T"],
    h: Int[np.ndarray, "H"],
    r: Int[np.ndarray, "R"],
    order: int,
) -> Iterator[Float[np.ndarray, "H R"]]:
    """For n = 1 … order, how many n-grams sequence h[i] shares with sequence r[j], clipped.

    The sum of min(count in h, count in r) over n-grams is the number of pairs (n-gram, k) such
    that both have a k-th occurrence of it. Those pairs are columns of a 0/1 matrix with a row per
    sequence, and all sums are one product of such matrices.

    Args:
      symbols: the symbols of all T sequences, one sequence after the other.
      lengths: of the sequences; their sum is N.
    """
    row = np.repeat(np.arange(len(lengths)), lengths)
    start = np.arange(len(symbols))
    room = np.cumsum(lengths)[row] - start  # symbols from here to the end of the sequence
    alphabet, symbol = np.unique(symbols, return_inverse=True)
    gram = np.zeros(len(symbols), np.int64)  # the id of the (n − 1)-gram at each start
    for n in range(1, order + 1):
        fits = room[start] >= n
        start = start[fits]
        key = gram[fits] * len(alphabet) + symbol[start + n - 1]
        by_key = np.argsort(key, kind="stable")  # within an n-gram, sequences stay in order
        sequence = row[start][by_key]
        new_gram = np.diff(key[by_key], prepend=-1) != 0
        new_cell = new_gram | (np.diff(sequence, prepend=-1) != 0)
        place = np.arange(len(key))
        occurrence = place - np.maximum.accumulate(np.where(new_cell, place, 0))  # k, from 0
        # An n-gram has as many columns as it has places, more than enough for its greatest k.
        column = np.maximum.accumulate(np.where(new_gram, place, 0)) + occurrence
        shape = (len(lengths), len(key))
        ones = csr_array((np.ones(len(key)), (sequence, column)), shape=shape)
        # Sparse, because most columns are in few sequences; and it starts no threads.
        yield (ones[h] @ ones[r].T).toarray()
        gram = np.empty(len(key), np.int64)
        gram[by_key] = np.cumsum(new_gram) - 1
