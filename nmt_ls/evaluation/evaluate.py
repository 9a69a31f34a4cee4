"""Evaluate a run on test sets: everything that results.json holds."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nmt_ls.config import Config, CorpusConfig
from nmt_ls.config_languages import bleu_tokenizer
from nmt_ls.data.evaluation_sets import EvaluationSet, fingerprint_now, load_evaluation_set
from nmt_ls.data.prepare import PreparedData
from nmt_ls.data.subwords import Subwords
from nmt_ls.decoding.files import warn_of_truncated
from nmt_ls.decoding.scoring import score_tokens
from nmt_ls.decoding.translator import Translation, Translator
from nmt_ls.errors import UserError
from nmt_ls.evaluation.breakdown import by_length, by_word_frequency
from nmt_ls.evaluation.comet import comet_score
from nmt_ls.evaluation.fitting import Fitted, fit_run
from nmt_ls.evaluation.inference_calibration import (
    NoWords,
    inference_calibration,
    inference_labels,
    marked_pieces,
    words_of_pieces,
)
from nmt_ls.evaluation.likelihood import likelihood, nll_per_token, perplexity_of
from nmt_ls.evaluation.projection import projection
from nmt_ls.evaluation.risk_coverage import risk_coverage
from nmt_ls.evaluation.search_health import beam_curve, empty_translations, strategies
from nmt_ls.evaluation.tokenizers import tokenizer
from nmt_ls.evaluation.translation import (
    corpus_bleu,
    scores_from_statistics,
    sentence_statistics,
    translation_metrics,
)
from nmt_ls.losses import TokenStatistics
from nmt_ls.training.runs import LoadedRun


class Evaluation(NamedTuple):
    """What was measured on a test set, and what it was measured of."""

    results: dict[str, Any]
    """What results.json says of the test set."""
    translations: list[Translation]
    """Of its sources, in order."""
    statistics: list[TokenStatistics]
    """Of its first references, teacher-forced."""


def evaluate(
    run: LoadedRun,
    data: EvaluationSet,
    *,
    fitted: tuple[Fitted, np.ndarray] | None = None,
    frequencies: Mapping[str, int] | None = None,
    training: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Evaluation:
    """Everything that the run's configuration asks to measure on a test set.

    Args:
      run: the model.
      data: the test set.
      fitted: from `fitted_on_validation`; adds likelihood and calibration under each adjustment.
      frequencies: how often each target word occurs in the training text (`word_counts`); adds
        quality by word frequency.
      training: from `training_sample`; adds `training`, the likelihood of training pairs.
      progress: show a bar on a terminal.
    """
    decoding, asked = run.config.decoding, run.config.evaluation
    tokenize = bleu_tokenizer(run.config)
    tokenizer(tokenize)  # before the work, not after it
    statistics = score_tokens(
        run.config.model,
        run.subwords,
        run.params,
        data.source_ids,
        data.target_ids,
        batch_sentences=decoding.batch_sentences,
    )
    translator = Translator.of([run])
    translations = translator.translate_ids(
        [ids.tolist() for ids in data.source_ids], progress=progress
    )
    warn_of_truncated(translator)
    found = [t.text for t in translations]
    results = {
        **translation_metrics(
            found,
            data.references,
            tokenize=tokenize,
            lowercase_tokenized=asked.lowercase_tokenized,
        ),
        **likelihood(statistics, data, run.subwords.unk),
        "unk_share": data.unk_share,
        "sentences": len(data.sources),
        "truncated_sources": translator.truncated,
        "decode": dataclasses.asdict(decoding),
        "checkpoint": run.checkpoint,
        "label_smoothing": run.config.loss.label_smoothing,
        "fingerprint": data.fingerprint,
    }
    results["by_source_length"] = by_length(found, data.references, data.sources, tokenize)
    if training is not None:
        results["training"] = dict(training)
    if frequencies is not None:
        results["by_word_frequency"] = by_word_frequency(
            found, data.references, frequencies, tokenize
        )
    elif asked.word_frequency:
        results["by_word_frequency"] = None  # asked for, but the training text is not at hand
    if asked.comet:
        results |= comet_score(asked, data.sources, found, data.references)
    if asked.empty:
        results |= empty_translations(run, data, translations)
    if asked.beams:
        results["beam_curve"] = beam_curve(run, data, asked.beams)
    if asked.strategies:
        results["strategies"] = strategies(run, data, asked.strategies)
    if asked.projection:
        results["projection"] = projection(run, data)  # None without three frequent words
    results |= _selective(translations, found, data)
    inference = _inference_calibration(run, translations, data)
    if inference is not None:
        results["inference_calibration"] = inference
    if fitted is not None:
        results["adjusted"] = _adjusted(run, data, *fitted)
        results["fitted_on"] = validation_fingerprint(run.config, run.subwords)
    return Evaluation(results, translations, statistics)


def _selective(
    translations: list[Translation], texts: list[str], data: EvaluationSet
) -> dict[str, Any]:
    """Risk and coverage of sentences: is the model surer of its better translations?

    Confidence is log p per token, risk 1 − sentence-level chrF/100.
    """
    (counts,) = sentence_statistics([texts], data.references, "chrf")
    risk = 1 - scores_from_statistics(counts, "chrf") / 100
    confidence = np.array([t.log_prob / max(len(t.tokens), 1) for t in translations])
    return {"risk_coverage": risk_coverage(confidence, risk)}


def _inference_calibration(
    run: LoadedRun, translations: list[Translation], data: EvaluationSet
) -> dict[str, Any] | None:
    """Calibration of the words that search chose; None where no word can be told from pieces."""
    subwords = run.subwords
    if subwords.pretokenized and not subwords.joiner.endswith(" "):
        return None
    log_probs, labels = [], []
    for translation, references in zip(translations, data.references, strict=True):
        pieces = subwords.target_pieces(translation.tokens)
        if subwords.pretokenized:
            pieces = marked_pieces(pieces, subwords.joiner.rstrip())
        try:
            words, of_words = words_of_pieces(pieces, translation.token_log_probs)
        except NoWords:  # subwords that were learnt across spaces
            return None
        log_probs.append(of_words)
        labels.append(inference_labels(words, references[0].split()))
    return inference_calibration(log_probs, labels)


def fitted_on_validation(run: LoadedRun) -> tuple[Fitted, np.ndarray] | None:
    """Temperature and un-mixing that suit a run's validation text best, and the prior un-mixed.

    None without validation text, or where `evaluation.fit` says no.
    """
    corpus = run.config.data.validation
    if corpus is None or not run.config.evaluation.fit:
        return None
    return fit_run(run, load_evaluation_set("validation", corpus, run.config, run.subwords))


def validation_fingerprint(config: Config, subwords: Subwords) -> str:
    """Of the text that adjustments are fitted on, as it is now; empty where nothing is fitted."""
    corpus = config.data.validation
    if corpus is None or not config.evaluation.fit:
        return ""
    return fingerprint_now("validation", corpus, config.data, subwords)


def _adjusted(
    run: LoadedRun, data: EvaluationSet, fitted: Fitted, prior: np.ndarray
) -> dict[str, dict[str, Any]]:
    likelihoods = ("nll_per_token", "perplexity", "nll_per_word", "nll_per_character", "entropy")
    kept = (*likelihoods, "ece", "gap", "accuracy")
    found: dict[str, dict[str, Any]] = {}
    for name, adjustment in fitted._asdict().items():
        statistics = score_tokens(
            run.config.model, run.subwords, run.params, data.source_ids, data.target_ids,
            adjusted=(prior, adjustment), batch_sentences=run.config.decoding.batch_sentences,
        )  # fmt: skip
        measured = likelihood(statistics, data, run.subwords.unk)
        found[name] = {**adjustment._asdict(), **{key: measured[key] for key in kept}}
    return found


def test_sets(
    run: LoadedRun, names: list[str] | None = None, log: Callable[[str], None] | None = None
) -> list[EvaluationSet]:
    """The test sets of a run's configuration, all or those named (`validation` is one too).

    Raises:
      UserError: no such set.
    """
    config = run.config
    corpora = dict(config.data.tests)
    if config.data.validation is not None:
        corpora.setdefault("validation", config.data.validation)
    chosen = list(config.data.tests) if names is None else names
    if not chosen:
        raise UserError(f"{run.run_dir} names no data.tests; give --source and --reference")
    for name in chosen:
        if name not in corpora:
            raise UserError(f"--split {name}: the run has {', '.join(corpora) or 'none'}")
    return [load_evaluation_set(name, corpora[name], config, run.subwords) for name in chosen]


def files_as_set(run: LoadedRun, source: Path, references: list[Path]) -> EvaluationSet:
    """A test set of two or more aligned files, named after the source file.

    Raises:
      UserError: the configuration gives that name to other text, whose results would be replaced;
        what `corpora.load_pairs` raises.
    """
    if source.stem.endswith(".source"):
        raise UserError(
            f"--source {source}: results of {source.stem} would lie where a run keeps the sources "
            f"of {source.stem.removesuffix('.source')}\ncopy the file to another name"
        )
    corpus = CorpusConfig(
        source=str(source.absolute()), target=tuple(str(r.absolute()) for r in references)
    )
    found = load_evaluation_set(source.stem, corpus, run.config, run.subwords)
    place = _place_of_other_text(run, found)
    if place:
        raise UserError(
            f"--source {source}: {place} of {run.run_dir} has that name and other text, and its"
            f" results would be lost\ncopy the file to another name, such as"
            f" my-{source.name}"
        )
    return found


def _place_of_other_text(run: LoadedRun, found: EvaluationSet) -> str:
    """Where the configuration has another set of the same name; empty where it has none."""
    data, name = run.config.data, found.name
    place = f"data.tests.{name}" if name in data.tests else "data.validation"
    corpus = data.tests.get(name, data.validation)
    if name not in (*data.tests, "validation"):
        return ""
    if corpus is None:
        return place
    try:
        configured = fingerprint_now(name, corpus, data, run.subwords)
    except UserError:  # it is gone, its results are not
        return place
    return "" if configured == found.fingerprint else place


def make_validator(
    config: Config, data: PreparedData
) -> Callable[[dict[str, np.ndarray], int], dict[str, float]] | None:
    """What the trainer validates with: hard-label nll and perplexity, and BLEU if asked for.

    BLEU is sacreBLEU of greedy translations, without un-mixing. A model that has become NaN is
    measured as NaN, not refused. None without a validation set.
    """
    if data.validation is None:
        return None
    held_out, subwords = data.validation, data.subwords
    if config.training.validate_bleu:
        tokenizer(bleu_tokenizer(config))  # before the training, not in it
    greedy = dataclasses.replace(config.decoding, strategy="beam", beam=1, groups=1)

    def validate(params: dict[str, np.ndarray], step: int) -> dict[str, float]:
        statistics = score_tokens(
            config.model, subwords, params, held_out.source_ids, held_out.target_ids,
            batch_sentences=greedy.batch_sentences,
        )  # fmt: skip
        nll = nll_per_token(statistics)
        measured = {"nll": nll, "perplexity": perplexity_of(nll)}
        if config.training.validate_bleu:
            translator = Translator([config.model], [params], subwords, greedy)
            outputs = translator.translate_ids([ids.tolist() for ids in held_out.source_ids])
            texts = [t.text for t in outputs]
            measured["bleu"] = corpus_bleu(texts, held_out.references, bleu_tokenizer(config))
        return measured

    return validate
