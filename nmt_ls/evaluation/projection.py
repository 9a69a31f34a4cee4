"""How tightly hidden states cluster by the word they predict: the picture of Müller et al.

Label smoothing pulls the penultimate layer's states of one word together and makes them equally
far from every other word's. The projection: take three words, the plane through their rows of the
output matrix, and where the hidden states that predict those words fall on it.

Reference: Müller, Kornblith and Hinton, "When Does Label Smoothing Help?" (NeurIPS 2019,
arXiv 1906.02629), section 2 and figure 1.
"""

from collections import Counter
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from nmt_ls.data.evaluation_sets import EvaluationSet
from nmt_ls.data.subwords import Subwords
from nmt_ls.decoding.scoring import hidden_states
from nmt_ls.errors import UserError
from nmt_ls.model import graph_of, model_of
from nmt_ls.training.runs import LoadedRun

WORDS = 3
"""Three points span a plane."""

SENTENCES = 1000
"""At most so many sentences are read through the model, the first ones that have such a word."""

POINTS = 150
"""Of each word the coordinates of so many tokens are kept: a picture needs no more."""

FEWEST = 2
"""Tokens that a word needs, or it has no spread."""


def projection(
    run: LoadedRun, data: EvaluationSet, words: Sequence[str] | None = None
) -> dict[str, Any] | None:
    """Hidden states of the tokens of three target words on the plane through their output rows.

    Teacher-forced over the first references. What is projected is the state from which the token
    is predicted, the one that the output matrix turns into logits.

    Args:
      run: the model.
      data: the sentences.
      words: three different target words, each a single piece of the run's subwords; None: the
        three most frequent ones of `data`, by its text alone, so that runs that share their
        subwords are compared on the same words. A piece counts where it is a whole word.

    Returns:
      None if `words` is None and the text has no three such words; else
      `words`: the three; `tokens`: how often each was met;
      `points`: per word `[n, 2]` coordinates of its first n ≤ 150 tokens, and `templates`: per word
      the `[2]` coordinates of its row of the output matrix, both in the units of the hidden state,
      from the centre of the three rows, the first axis from the first row towards the second;
      `plane` and `hidden`: of all tokens, on the plane and in the whole space of hidden states, the
      mean squared distance `within` of a token to its word's mean, `between` of its word's mean to
      the mean of all, and `ratio` = within / between, None where the means coincide. Smaller is
      tighter; only `ratio` compares models, whose units differ.

    Raises:
      UserError: not three different words, a word that is no single piece or is met less than
        twice, or three output rows on one line.
    """
    vocabulary = _Vocabulary(run.subwords)
    found = [ids[vocabulary.whole(ids)] for ids in data.target_ids]
    ids = _frequent(found) if words is None else _given(run, data.name, words, found)
    if ids is None:
        return None
    states = _states(run, data, vocabulary, ids)
    matrix = _output_rows(run, ids)
    centre, basis = _plane(matrix)
    flat = [(x - centre) @ basis for x in states]
    names = [vocabulary.text[index] for index in ids]
    return {
        "words": names,
        "tokens": [len(x) for x in states],
        "points": {n: _rounded(x[:POINTS]) for n, x in zip(names, flat, strict=True)},
        "templates": {
            n: _rounded(x) for n, x in zip(names, (matrix - centre) @ basis, strict=True)
        },
        "plane": scatter(flat),
        "hidden": scatter(states),
    }


def scatter(classes: Sequence[Float[np.ndarray, "_ D"]]) -> dict[str, float | None]:
    """Mean squared distances within and between classes; they add up to the total variance.

    Args:
      classes: the points `[n, D]` of each class, at least one.

    Returns:
      `within`: Σ |x − mean of its class|² / N; `between`: Σ |mean of its class − mean of all|² / N;
      `ratio`: within / between, None where between is 0.
    """
    points = np.concatenate(classes).astype(np.float64)
    means = [np.mean(x, axis=0, dtype=np.float64) for x in classes]
    every = points.mean(axis=0)
    within = sum(float(np.sum((x - m) ** 2)) for x, m in zip(classes, means, strict=True))
    between = sum(
        len(x) * float(np.sum((m - every) ** 2)) for x, m in zip(classes, means, strict=True)
    )
    return {
        "within": within / len(points),
        "between": between / len(points),
        "ratio": within / between if between else None,
    }


class _Vocabulary:
    """Which pieces are words, and where in a sentence a piece is the whole of one.

    "▁de" is a word in "▁de ▁facto" and none in "▁de r".
    """

    def __init__(self, subwords: Subwords):
        pieces = subwords.target_pieces(range(subwords.target_size))
        special = {subwords.pad, subwords.unk, subwords.bos, subwords.eos}
        self.text = [piece.removeprefix("▁") for piece in pieces]
        # A byte is part of some letter.
        letters = np.array([text.isalnum() or text.startswith("<0x") for text in self.text])
        known = np.array([index not in special for index in range(len(pieces))])
        begins = np.ones(len(pieces), bool)
        self.goes_on = np.zeros(len(pieces), bool)
        if not subwords.pretokenized:
            begins = np.array([piece.startswith("▁") for piece in pieces])
        elif mark := subwords.joiner.rstrip():
            self.goes_on = np.array([piece.endswith(mark) for piece in pieces])
        self.is_word = known & begins & letters
        # Punctuation ends a word as a space does.
        self.ends_word = ~known | begins | ~letters

    def whole(self, ids: Int[np.ndarray, "T"]) -> Bool[np.ndarray, "T"]:
        """Where a token is a whole word. `ids` has end-of-sentence, which is none."""
        after = np.append(self.ends_word[ids[1:]], True)
        before = np.append(True, ~self.goes_on[ids[:-1]])
        return self.is_word[ids] & after & before


def _frequent(words: Sequence[Int[np.ndarray, "_"]]) -> list[int] | None:
    """The most frequent words; of equally frequent ones the lower id."""
    counts = Counter(chain.from_iterable(ids.tolist() for ids in words))
    order = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    found = [index for index, count in order if count >= FEWEST][:WORDS]
    return found if len(found) == WORDS else None


def _given(
    run: LoadedRun, name: str, chosen: Sequence[str], words: Sequence[Int[np.ndarray, "_"]]
) -> list[int]:
    if len(chosen) != WORDS or len(set(chosen)) != WORDS:
        raise UserError(f"a projection needs three different words, not {', '.join(chosen)}")
    ids = []
    for word, encoded in zip(chosen, run.subwords.encode_target(chosen), strict=True):
        pieces = encoded[:-1]
        if len(pieces) != 1 or pieces[0] == run.subwords.unk:
            shown = " ".join(run.subwords.target_pieces(pieces)) or "nothing"
            raise UserError(
                f"the word {word!r} is no single piece of {run.run_dir} ({shown}); choose another"
            )
        count = sum(int(np.sum(found == pieces[0])) for found in words)
        if count < FEWEST:
            raise UserError(
                f"the word {word!r} occurs {count} times in {name}; a projection needs "
                f"at least {FEWEST}"
            )
        ids.append(pieces[0])
    return ids


def _states(
    run: LoadedRun, data: EvaluationSet, vocabulary: _Vocabulary, ids: Sequence[int]
) -> list[Float[np.ndarray, "_ D"]]:
    """The hidden states `[n, D]` that predict each of the words."""
    chosen: list[int] = []
    met: Counter[int] = Counter()
    for number, target in enumerate(data.target_ids):
        here = [index for index in target[vocabulary.whole(target)].tolist() if index in ids]
        # Past the limit only what a rare word still lacks.
        if any(len(chosen) < SENTENCES or met[index] < FEWEST for index in here):
            chosen.append(number)
            met.update(here)
    targets = [data.target_ids[i] for i in chosen]
    hidden = hidden_states(
        run.config.model, run.subwords, run.params, [data.source_ids[i] for i in chosen], targets,
        batch_sentences=run.config.decoding.batch_sentences,
    )  # fmt: skip
    both = list(zip(hidden, targets, strict=True))
    return [np.concatenate([x[(t == i) & vocabulary.whole(t)] for x, t in both]) for i in ids]


def _output_rows(run: LoadedRun, ids: Sequence[int]) -> Float[np.ndarray, "3 D"]:
    graph = graph_of(run.config.model, run.subwords.source_size, run.subwords.target_size)
    matrix, _ = model_of(graph, run.params).output_matrix()  # type: ignore[arg-type]
    return np.asarray(matrix, np.float64)[list(ids)]


def _plane(
    rows: Float[np.ndarray, "3 D"],
) -> tuple[Float[np.ndarray, "D"], Float[np.ndarray, "D 2"]]:
    """(centre of three points, orthonormal basis of the plane through them)."""
    first, second = rows[1] - rows[0], rows[2] - rows[0]
    length = np.linalg.norm(first)
    across = second - first * (first @ second) / max(length**2, np.finfo(float).tiny)
    height = np.linalg.norm(across)
    if height <= 1e-6 * np.linalg.norm(second) or not length:
        raise UserError("the output rows of the three words lie on one line; choose other words")
    return rows.mean(axis=0), np.stack([first / length, across / height], axis=1)


def _rounded(x: np.ndarray) -> list:
    return np.round(np.asarray(x, np.float64), 4).tolist()
