"""Is search held back by the model? Empty translations, wider beams, sampling and MBR instead."""

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from nmt_ls.config_languages import bleu_tokenizer
from nmt_ls.data.evaluation_sets import EvaluationSet
from nmt_ls.decoding.scoring import score_tokens
from nmt_ls.decoding.translator import Translation, Translator
from nmt_ls.evaluation.translation import translation_metrics
from nmt_ls.training.runs import LoadedRun


def empty_translations(
    run: LoadedRun, data: EvaluationSet, translations: Sequence[Translation]
) -> dict[str, float | None]:
    """How the empty translation compares with the one found (Stahlberg & Byrne 2019).

    Returns:
      `empty_better`: share of sentences whose empty translation has the greater log p (no length
      penalty); `empty_prob`: mean probability of the empty translation. Sentences without a source
      are left out; None where none is left.
    """
    subwords = run.subwords
    wanted = [i for i, ids in enumerate(data.source_ids) if len(ids) > 1]
    if not wanted:
        return {"empty_better": None, "empty_prob": None}
    statistics = score_tokens(
        run.config.model, subwords, run.params,
        [data.source_ids[i] for i in wanted], [[subwords.eos]] * len(wanted),
        batch_sentences=run.config.decoding.batch_sentences,
    )  # fmt: skip
    empty = np.array([-float(s.nll[0]) for s in statistics])
    # As scored by the model itself: search may have been in an un-mixed or tempered distribution.
    outputs = score_tokens(
        run.config.model, subwords, run.params,
        [data.source_ids[i] for i in wanted], [list(translations[i].tokens) for i in wanted],
        batch_sentences=run.config.decoding.batch_sentences,
    )  # fmt: skip
    found = np.array([-float(s.nll.sum()) for s in outputs])
    return {
        "empty_better": float(np.mean(empty > found)),
        "empty_prob": float(np.mean(np.exp(empty))),
    }


def beam_curve(run: LoadedRun, data: EvaluationSet, beams: Sequence[int]) -> list[dict[str, Any]]:
    """BLEU, length ratio and share of empty outputs of beam sizes, by raw log p.

    The numbers behind the beam-search curse (Koehn & Knowles 2017): without a length penalty wider
    beams find more probable and shorter translations.
    """
    curve = []
    for beam in beams:
        decoding = dataclasses.replace(
            run.config.decoding, strategy="beam", beam=beam, length_penalty="none", groups=1,
        )  # fmt: skip
        outputs = Translator.of([run], decoding).translate_ids(
            [ids.tolist() for ids in data.source_ids]
        )
        metrics = translation_metrics(
            [t.text for t in outputs], data.references, tokenize=bleu_tokenizer(run.config)
        )
        kept = ("bleu", "length_ratio", "empty_outputs")
        log_p = float(np.mean([t.log_prob for t in outputs]))
        curve.append({"beam": beam, **{k: metrics[k] for k in kept}, "mean_log_prob": log_p})
    return curve


def strategies(
    run: LoadedRun, data: EvaluationSet, names: Sequence[Literal["sample", "mbr"]]
) -> dict[str, dict[str, Any]]:
    """BLEU, chrF, length ratio and empty outputs of other ways to decode, by strategy.

    Smoothing hurts sampling and MBR where search does not notice: every token keeps some of it.
    All other settings are the run's: `decoding.samples`, `utility`, `top_k`, `top_p`, ….
    """
    found: dict[str, dict[str, Any]] = {}
    for name in names:
        decoding = dataclasses.replace(run.config.decoding, strategy=name)
        outputs = Translator.of([run], decoding).translate_ids(
            [ids.tolist() for ids in data.source_ids]
        )
        metrics = translation_metrics(
            [t.text for t in outputs], data.references, tokenize=bleu_tokenizer(run.config)
        )
        found[name] = {k: metrics[k] for k in ("bleu", "chrf", "length_ratio", "empty_outputs")}
    return found
