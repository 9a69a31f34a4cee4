"""From a configuration to tokenised tables: read, train subwords, filter, encode, cache."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import datasets
import numpy as np

from nmt_ls.config import Config, DataConfig
from nmt_ls.data import corpora
from nmt_ls.data.batches import random_order
from nmt_ls.data.cache import cache_root, cached_folder, hash_of, read_table, write_table
from nmt_ls.data.evaluation_sets import CORPUS_SEED, EvaluationSet, load_evaluation_set
from nmt_ls.data.filtering import FEATURES, Counts, batches, encoded, first_of_identical
from nmt_ls.data.subwords import Subwords
from nmt_ls.errors import UserError
from nmt_ls.messages import tell

FORMAT = 1
"""Counts changes of the tokenised table; part of every fingerprint."""

UNK_TOLERATED = 0.001
"""A share of `<unk>` above this is warned of."""

TRAINING_CHARACTERS = 40_000_000
"""Subwords are trained on a sample of at most so many: SentencePiece's unigram trainer takes some
23 bytes of memory for each."""

_SAMPLE = 4
"""The purpose of that sample's random order; `batches.py` has 1 to 3."""

Log = Callable[[str], None]


@dataclasses.dataclass
class PreparedData:
    """What training needs of the data."""

    train: datasets.Dataset
    """Memory-mapped; columns source, target (string), source_ids, target_ids (list of int32,
    `eos` at the end)."""
    subwords: Subwords
    report: dict[str, Any]
    """pairs_read, removed (by filter), pairs_kept, tokens (by side, `eos` included), unk_share
    (by split and side)."""
    fingerprint: str
    """Digest of all that decided the table, SentencePiece's version among it."""
    text: str
    """Digest of the training text and of what is left out of it, whatever the subwords."""
    validation: EvaluationSet | None


def prepare(
    config: Config,
    *,
    subwords: Subwords | None = None,
    begun: Subwords | None = None,
    log: Log = tell,
) -> PreparedData:
    """The training table, the subwords and the validation set of a configuration.

    Args:
        config: `data` and `subwords` are used.
        subwords: Use these, of a run that `config` names, instead of training or reading any.
        begun: Of a run that goes on with this text: used where the cache has lost them, since
            another version of SentencePiece might train others.
        log: Takes progress and warnings, a line at a time.

    Returns:
        The same text and settings give the identical table, from the cache where there is one.

    Raises:
        UserError: the text or the settings are at fault, or no pair is left to train on.
    """
    data = config.data
    if subwords is None and config.subwords.model_file:
        subwords = Subwords.from_files(
            config.subwords, pretokenized=data.pretokenized, joiner=data.joiner
        )
    _check_evaluation_files(data, log)
    content = corpora.content_fingerprint(data.train, data, CORPUS_SEED, key="data.train")
    fingerprint = _fingerprint(config, content, subwords)
    folder = cache_root(data) / fingerprint
    if subwords is None and begun is not None and not _has_subwords(folder, begun):
        subwords = begun
        folder = cache_root(data) / _fingerprint(config, content, subwords)

    def build(building: Path) -> None:
        _build(building, config, subwords, log)

    cached_folder(folder, build, log)
    report = json.loads((folder / "report.json").read_text())
    found = Subwords.load(folder)
    found = found.with_sampling(config.subwords.sampling_candidates, config.subwords.sampling_alpha)
    _log_report(report, found, log)
    validation = None
    if data.validation is not None:
        validation = load_evaluation_set("validation", data.validation, data, found)
        report["unk_share"]["validation"] = validation.unk_share
        _warn_of_unknowns("validation", validation.unk_share, found, log)
    return PreparedData(
        train=read_table(folder / "train.arrow"),
        subwords=found,
        report=report,
        fingerprint=fingerprint,
        text=hash_of({"format": FORMAT, "content": content, **_text_settings(data)}),
        validation=validation,
    )


def given_subwords(config: Config) -> dict[str, str]:
    """The settings that name whose subwords a configuration has, with their values.

    A run that training starts from comes first, then a teacher, then files; empty where subwords
    are trained on the text.
    """
    files, loss = config.subwords, config.loss
    for given in (
        {"training.init_from": config.training.init_from},
        {"loss.graduated_run": loss.graduated_run},
        {"loss.teacher_run": loss.teacher_run},
        {
            "subwords.model_file": files.model_file,
            "subwords.source_model_file": files.source_model_file,
        },
    ):
        if any(given.values()):
            return {key: value for key, value in given.items() if value}
    return {}


def _has_subwords(folder: Path, subwords: Subwords) -> bool:
    try:
        return Subwords.load(folder).fingerprint == subwords.fingerprint
    except UserError:
        return False


def _check_evaluation_files(data: DataConfig, log: Log) -> None:
    """Finds out before training, not after it, that a file is missing.

    Raises:
        UserError: the validation set cannot be read. A test set that cannot is warned of.
    """
    if data.validation is not None:
        corpora.load_pairs(data.validation, data, seed=CORPUS_SEED, key="data.validation")
    for name, corpus in data.tests.items():
        if corpus.kind in ("text", "tsv", "jsonl"):
            try:
                corpora.content_fingerprint(corpus, data, CORPUS_SEED, key=f"data.tests.{name}")
            except UserError as error:
                log(f"warning: {error}")


def _fingerprint(config: Config, content: str, subwords: Subwords | None) -> str:
    data = config.data
    settings = dataclasses.asdict(config.subwords)
    # Sampling happens when batches are made; files count by what is in them.
    for name in ("sampling_candidates", "sampling_alpha", "model_file", "source_model_file"):
        del settings[name]
    return hash_of(
        {
            "format": FORMAT,
            "sentencepiece": version("sentencepiece"),
            "content": content,
            "subwords": subwords.fingerprint if subwords is not None else settings,
            **_text_settings(data),
        }
    )


def _text_settings(data: DataConfig) -> dict[str, Any]:
    return {
        "pretokenized": [data.pretokenized, data.joiner],
        "filters": [data.max_length, data.max_length_ratio, data.deduplicate],
    }


def _build(folder: Path, config: Config, subwords: Subwords | None, log: Log) -> None:
    data = config.data
    pairs = corpora.load_pairs(data.train, data, seed=CORPUS_SEED, key="data.train")
    _refuse_several_references(pairs)
    if subwords is None:
        subwords = _trained(pairs, config, log)
    subwords.save(folder)
    counts = Counts()
    first = first_of_identical(pairs) if data.deduplicate else None
    tables = encoded(pairs, data, subwords, first, counts)
    kept = write_table(folder / "train.arrow", FEATURES, tables)
    report = counts.report(kept)
    if not kept:
        raise UserError(
            f"no training pair is left of {counts.read:,}: {_removed(report)}; "
            "check data.train and data.max_length"
        )
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n")


def _refuse_several_references(pairs: datasets.Dataset) -> None:
    for batch in pairs.data.table.to_batches():
        lengths = np.diff(batch["references"].offsets.to_numpy())
        if (lengths != 1).any():
            raise UserError(
                "data.train.target: training pairs have one reference each, "
                f"but pair {int((lengths != 1).argmax()) + 1} has {int(lengths[lengths != 1][0])}"
            )


def _trained(pairs: datasets.Dataset, config: Config, log: Log) -> Subwords:
    chosen = None
    # A vocabulary of words is that of the whole text; counting it takes little memory.
    if not config.data.pretokenized:
        chosen = _sample(pairs, config)
    read = len(pairs) if chosen is None else int(chosen.sum())
    of_all = f" of {len(pairs):,}" if read < len(pairs) else ""
    log(f"training subwords on {read:,}{of_all} pairs")

    def column(side: int) -> Callable[[], Iterator[str]]:
        def texts() -> Iterator[str]:
            start = 0
            for batch in batches(pairs):
                mask = None if chosen is None else chosen[start : start + len(batch[side])]
                start += len(batch[side])
                for row, text in enumerate(batch[side]):
                    if mask is None or mask[row]:
                        yield text

        return texts

    return Subwords.train(
        column(0),
        column(1),
        config.subwords,
        pretokenized=config.data.pretokenized,
        joiner=config.data.joiner,
    )


def _sample(pairs: datasets.Dataset, config: Config) -> np.ndarray | None:
    """bool [pairs]: those that train the subwords, the same ones every time; None for all."""
    characters = 0
    for sources, targets in batches(pairs):
        characters += sum(map(len, sources)) + sum(map(len, targets))
    sentences = config.subwords.training_sentences
    most = sentences // 2 if config.subwords.joint else sentences
    most = max(1, min(most, int(TRAINING_CHARACTERS * len(pairs) / max(characters, 1))))
    if len(pairs) <= most:
        return None
    chosen = np.zeros(len(pairs), bool)
    chosen[random_order(_SAMPLE, size=len(pairs))[:most]] = True
    return chosen


def _removed(report: dict[str, Any]) -> str:
    named = {
        "empty": "with an empty side",
        "duplicate": "duplicates",
        "too_long": "too long",
        "ratio": "of too unequal lengths",
    }
    parts = [f"{count:,} {named[name]}" for name, count in report["removed"].items() if count]
    return ", ".join(parts) or "none removed"


def _log_report(report: dict[str, Any], subwords: Subwords, log: Log) -> None:
    tokens = report["tokens"]
    log(
        f"training pairs: {report['pairs_kept']:,} of {report['pairs_read']:,} "
        f"({_removed(report)}); tokens: {tokens['source']:,} source, {tokens['target']:,} target"
    )
    for side, share in report["unk_share"]["train"].items():
        _warn_of_unknowns(f"training {side}", share, subwords, log)


def _warn_of_unknowns(what: str, share: float, subwords: Subwords, log: Log) -> None:
    if share <= UNK_TOLERATED:
        return
    advice = (
        "is it segmented as the training text is?"
        if subwords.pretokenized
        else "raise subwords.character_coverage or set subwords.byte_fallback=true"
    )
    log(f"warning: {share:.2%} of the {what} tokens are <unk>; {advice}")
