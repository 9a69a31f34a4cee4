"""Where a system is good or bad: BLEU by sentence length, word accuracy by word frequency.

The two questions are compare-mt's (Neubig et al. 2019); the scores are sacreBLEU's, and words are
the tokens that its BLEU counts. Cased, on detokenised text, as `translation_metrics`.
"""

from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from nmt_ls.evaluation.tokenizers import DEFAULT, tokenizer
from nmt_ls.evaluation.translation import checked_streams, reference_streams, scorer_of

LENGTHS = (0, 1, 6, 11, 16, 21, 31, 51)
"""Where buckets of source length begin, in words between white space. 0 is an empty source: no
sentence of a test set is left out."""

FREQUENCIES = (0, 1, 2, 5, 10, 100, 1000)
"""Where buckets of frequency in the training targets begin."""


def by_length(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    sources: Sequence[str],
    tokenize: str = DEFAULT,
) -> list[dict[str, Any]]:
    """Corpus BLEU of the sentences in each bucket of source length.

    Args:
      hypotheses: N translations, detokenised.
      references: for each of the N sentences its raw references, at least one.
      sources: the N source sentences; their length is their number of words between white space.
      tokenize: how BLEU splits words.

    Returns:
      A row per bucket that holds sentences, the shortest first: `low` and `high` (words, both
      included; `high` is None for the last bucket), `sentences`, `bleu` in percent, and
      `length_ratio` as in `translation_metrics`. A bucket without one match of four words has a
      BLEU that is smoothed, and one without any output of four words a BLEU of 0, as sacreBLEU
      has it; with few sentences the figure says little.

    Raises:
      ValueError: no sentences, unequal numbers, or a sentence without reference.
    """
    checked_streams(hypotheses, references)
    if len(sources) != len(hypotheses):
        raise ValueError(f"{len(hypotheses)} hypotheses but {len(sources)} sources")
    members: list[list[int]] = [[] for _ in LENGTHS]
    for index, source in enumerate(sources):
        members[_bucket(LENGTHS, len(source.split()))].append(index)
    rows = []
    for bounds, indices in zip(_bounds(LENGTHS), members, strict=True):
        if not indices:
            continue
        # force: `translation_metrics` has warned of tokenised text already.
        score = scorer_of("bleu", tokenize, force=True).corpus_score(
            [hypotheses[i] for i in indices], reference_streams([references[i] for i in indices])
        )
        rows.append(
            {
                **bounds,
                "sentences": len(indices),
                "bleu": float(score.score),
                "length_ratio": float(score.ratio),
            }
        )
    return rows


def by_word_frequency(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    counts: Mapping[str, int],
    tokenize: str = DEFAULT,
) -> list[dict[str, Any]]:
    """How well words are translated that training saw never, seldom or often.

    A word of an output is right as often as the first reference of its sentence has it, wherever
    it stands there (BLEU's clipping, for single words).

    Args:
      hypotheses: N translations, detokenised.
      references: for each of the N sentences its raw references, of which the first is used.
      counts: how often each word occurs in the training targets, see `word_counts`; a word that
        is not in it occurs 0 times.
      tokenize: how BLEU splits words; `counts` are to be of the same.

    Returns:
      A row per bucket that has words in references or outputs, the rarest first: `low` and `high`
      (occurrences in training, both included; `high` is None for the last bucket), `words`
      (tokens of the references), and as shares in [0, 1] `precision` (of the outputs' words in
      this bucket, None if they have none), `recall` (of `words`, None if there are none) and
      `f1`, twice the matches over the words of both sides (0 where nothing matches).

    Raises:
      ValueError: no sentences, unequal numbers, or a sentence without reference.
    """
    checked_streams(hypotheses, references)
    found, wanted, right = ([0] * len(FREQUENCIES) for _ in range(3))
    for hypothesis, lines in zip(hypotheses, references, strict=True):
        output, reference = (
            Counter(_words(hypothesis, tokenize)),
            Counter(_words(lines[0], tokenize)),
        )
        for totals, words in ((found, output), (wanted, reference), (right, output & reference)):
            for word, count in words.items():
                totals[_bucket(FREQUENCIES, counts.get(word, 0))] += count
    return [
        {
            **bounds,
            "words": w,
            "precision": r / f if f else None,
            "recall": r / w if w else None,
            "f1": 2 * r / (f + w),
        }
        for bounds, f, w, r in zip(_bounds(FREQUENCIES), found, wanted, right, strict=True)
        if f or w
    ]


def word_counts(lines: Iterable[str], tokenize: str = DEFAULT) -> Counter[str]:
    """How often each token that BLEU counts occurs in the lines: raw text, read in a stream."""
    counts: Counter[str] = Counter()
    for line in lines:
        counts.update(_words(line, tokenize))
    return counts


def _words(line: str, tokenize: str) -> list[str]:
    # BLEU strips the end of a line before it tokenises, and 13a is not the same without.
    return tokenizer(tokenize)(line.rstrip()).split()


def _bucket(edges: tuple[int, ...], value: int) -> int:
    return bisect_right(edges, value) - 1


def _bounds(edges: tuple[int, ...]) -> list[dict[str, int | None]]:
    highs = [*(edge - 1 for edge in edges[1:]), None]
    return [{"low": low, "high": high} for low, high in zip(edges, highs, strict=True)]
