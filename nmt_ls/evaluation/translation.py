"""Translation quality by sacreBLEU: BLEU, chrF2, chrF2++, TER with signatures; the counts they use.

Hypotheses are detokenised text; references are the raw lines of the test set, never changed here.
"""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from sacrebleu.metrics import BLEU, CHRF, TER

from nmt_ls.evaluation.tokenizers import DEFAULT, tokenizer

MetricName = Literal["bleu", "chrf", "ter"]

_METRICS = {"bleu": BLEU, "chrf": CHRF, "ter": TER}


def scorer_of(metric: MetricName, tokenize: str = DEFAULT, **options: Any) -> BLEU | CHRF | TER:
    """sacreBLEU's metric with its defaults but for `options`; `tokenize` is BLEU's alone.

    Raises:
      UserError: the tokeniser cannot be had here.
    """
    if metric != "bleu":
        return _METRICS[metric](**options)
    tokenizer(tokenize)
    return BLEU(tokenize=tokenize, **options)


def reference_streams(references: Sequence[Sequence[str]]) -> list[list[Any]]:
    """Per-sentence reference lists as sacreBLEU's streams, the shorter ones padded with None.

    Args:
      references: for each sentence its references, at least one; their number may differ.

    Returns:
      As many streams as the longest list has references, each as long as the test set. (Strings
      or None; sacreBLEU's own types leave out the None that it asks for.)

    Raises:
      ValueError: a sentence has no reference, or one given as a bare string.
    """
    for index, lines in enumerate(references):
        if isinstance(lines, str) or not lines:
            raise ValueError(f"sentence {index} needs a list of at least one reference: {lines!r}")
    most = max(map(len, references), default=0)
    return [
        [lines[stream] if stream < len(lines) else None for lines in references]
        for stream in range(most)
    ]


def checked_streams(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]]
) -> list[list[Any]]:
    """`reference_streams` of as many sentences as there are hypotheses.

    Raises:
      ValueError: no sentences, unequal numbers, or a sentence without reference.
    """
    # sacreBLEU zips the two and would silently score the shorter length.
    if len(hypotheses) != len(references):
        raise ValueError(f"{len(hypotheses)} hypotheses but {len(references)} sentences")
    if not hypotheses:
        raise ValueError("no sentences to score")
    return reference_streams(references)


def corpus_bleu(
    hypotheses: Sequence[str], references: Sequence[Sequence[str]], tokenize: str = DEFAULT
) -> float:
    """The `bleu` of `translation_metrics` alone, in percent: what validation asks for."""
    streams = checked_streams(hypotheses, references)
    return float(scorer_of("bleu", tokenize).corpus_score(list(hypotheses), streams).score)


def translation_metrics(
    hypotheses: Sequence[str],
    references: Sequence[Sequence[str]],
    *,
    tokenize: str = DEFAULT,
    lowercase_tokenized: bool = False,
) -> dict[str, float | str]:
    """Corpus scores with sacreBLEU's defaults (Post 2018): cased BLEU, chrF2, TER.

    chrF2++ (Popović 2017) is chrF2 with word uni- and bigrams beside the characters.

    Args:
      hypotheses: N translations, detokenised.
      references: for each of the N sentences its raw references (one or more, see
        `reference_streams`).
      tokenize: how BLEU splits words (`tokenizers.NAMES`).
      lowercase_tokenized: also give `bleu_lowercase_tokenized`, what many older papers report:
        lower-cased BLEU over the words between white space. Both sides are taken as they stand,
        so it is comparable only if the caller gives both as the same tokeniser left them; on
        detokenised text "Haus." is one word. The other scores are of the same lines.

    Returns:
      `bleu`, `chrf`, `chrf_plus_plus`, `ter` and, if asked for, `bleu_lowercase_tokenized`, in
      percent (TER: lower is better), each with its `…_signature`;
      `length_ratio`: tokens of the hypotheses over tokens of the closest references, as BLEU
      counts them; `empty_outputs`: share of hypotheses that are empty or white space.

    Raises:
      ValueError: no sentences, unequal numbers, or a sentence without reference.
      UserError: the tokeniser cannot be had here.
    """
    streams = checked_streams(hypotheses, references)
    hypotheses = list(hypotheses)
    scorers = {
        "bleu": scorer_of("bleu", tokenize),
        "chrf": CHRF(),
        "chrf_plus_plus": CHRF(word_order=2),
        "ter": TER(),
    }
    if lowercase_tokenized:
        # force: that the text is tokenised is the point here, not a mistake to warn of.
        scorers["bleu_lowercase_tokenized"] = BLEU(lowercase=True, tokenize="none", force=True)
    scores = {name: scorer.corpus_score(hypotheses, streams) for name, scorer in scorers.items()}
    return {
        **{name: score.score for name, score in scores.items()},
        # A scorer knows the number of references, which is part of its signature, only now.
        **{f"{name}_signature": str(scorer.get_signature()) for name, scorer in scorers.items()},
        "length_ratio": float(scores["bleu"].ratio),
        "empty_outputs": sum(not line.strip() for line in hypotheses) / len(hypotheses),
    }


def sentence_statistics(
    systems: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    metric: MetricName,
    tokenize: str = DEFAULT,
) -> list[np.ndarray]:
    """The counts of each sentence whose sums decide a corpus score: what a bootstrap resamples.

    Args:
      systems: the translations of each system, N sentences each. References are counted once for
        all of them.
      references: for each of the N sentences its raw references.
      metric: `bleu` gives [N, 10]: hypothesis and reference length, 4 matched and 4 total n-gram
        counts; `chrf` gives [N, 18]: for each of 6 orders the n-grams of the hypothesis, of the
        reference and in both; `ter` gives [N, 2]: edits, and the mean length of the references.
      tokenize: how BLEU splits words.

    Returns:
      One float64 array of counts per system.
    """
    if not systems:
        return []
    # The counts have no public name in sacreBLEU; its own paired tests take them from here too.
    scorer = scorer_of(metric, tokenize, references=checked_streams(systems[0], references))
    scorer._force = True  # `translation_metrics` has warned of tokenised text already
    arrays = []
    for hypotheses in systems:
        if len(hypotheses) != len(references):
            raise ValueError(f"{len(hypotheses)} hypotheses but {len(references)} sentences")
        arrays.append(np.array(scorer._extract_corpus_statistics(hypotheses, None), np.float64))
    return arrays


def ter_reference_length(references: Sequence[Sequence[str]]) -> float:
    """Σ over sentences of the mean length of their references: what a TER is a share of.

    A TER times this is its number of edits, which lets those of several test sets be added up.
    """
    # No public name in sacreBLEU either.
    lines = TER()._cache_references(reference_streams(references))
    return float(sum(np.mean([len(words) for words in line["ref_words"]]) for line in lines))


def scores_from_statistics(sums: np.ndarray, metric: MetricName) -> np.ndarray:
    """The score of each row of summed counts, by sacreBLEU's own formula.

    Args:
      sums: [R, 10, 18 or 2] sums over sentences of what `sentence_statistics` returns; a row of one
        sentence gives its sentence-level score.
      metric: which metric's counts they are.

    Returns:
      [R] scores in percent.
    """
    scorer = _METRICS[metric]()
    return np.array([scorer._compute_score_from_stats(row.tolist()).score for row in sums])
