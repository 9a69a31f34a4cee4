"""Settings that nothing reads beside the others: an ε schedule that is not on, say."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from nmt_ls.config import Config
from nmt_ls.config_checks import corpora
from nmt_ls.config_words import shown


def check_unused(configs: Sequence[Config]) -> list[str]:
    """One line for each setting that is not its default and that none of these configurations read.

    For a warning: one cell of a sweep may read what another does not, and a run that was begun with
    such a setting can be continued with no other.
    """
    unread = [_unread(config) for config in configs]
    lines = []
    for key in unread[0]:
        found = [one[key] for one in unread if key in one]
        given = [(value, why) for value, default, why in found if value != default]
        if given and len(found) == len(unread):
            value, why = given[0]
            lines.append(f"{key}={shown(value)} has no effect {why}")
    return lines


def _unread(config: Config) -> dict[str, tuple[Any, Any, str]]:
    """(value, default, why it has no effect) of each setting that nothing reads, by its key."""
    unread: dict[str, tuple[Any, Any, str]] = {}

    def note(section: str, settings: Any, names: Iterable[str], why: str) -> None:
        for name in names:
            default = getattr(type(settings)(), name)
            unread[f"{section}.{name}"] = (getattr(settings, name), default, why)

    subwords, loss = config.subwords, config.loss
    if config.training.init_from:
        note("subwords", subwords, _OF_SUBWORDS, "beside training.init_from")
    elif loss.graduated_run or loss.teacher_run:
        name = "graduated_run" if loss.graduated_run else "teacher_run"
        note("subwords", subwords, _OF_SUBWORDS, f"beside loss.{name}")
    elif subwords.model_file:
        note("subwords", subwords, _OF_SUBWORD_TRAINING, "beside subwords.model_file")
    elif config.data.pretokenized:
        note("subwords", subwords, _OF_SENTENCEPIECE, "with data.pretokenized=true")
    defaults = Config()
    for key, (other, reads) in _READ_WITH.items():
        if not reads(_value(config, other)):
            why = f"with {other}={shown(_value(config, other))}"
            unread[key] = (_value(config, key), _value(defaults, key), why)
    if config.evaluation.strategies:  # which draw
        unread.pop("decoding.seed", None)
    if "mbr" in config.evaluation.strategies:
        unread.pop("decoding.samples", None)
    for key, corpus in corpora(config).items():
        of_others = [name for name, kinds in _READ_BY.items() if corpus.kind not in kinds]
        note(key, corpus, of_others, f"with {key}.kind={corpus.kind}")
    return unread


_OF_SENTENCEPIECE = (
    "vocab_size",
    "algorithm",
    "character_coverage",
    "byte_fallback",
    "normalization",
    "training_sentences",
)
_OF_SUBWORD_TRAINING = (*_OF_SENTENCEPIECE, "user_symbols")
_OF_SUBWORDS = (*_OF_SUBWORD_TRAINING, "model_file", "source_model_file")
"""What decides subwords that are not another run's."""

_READ_BY = {
    "path": ("tsv", "jsonl", "datasets"),
    "source": ("text", "tsv", "jsonl", "datasets"),
    "target": ("text", "tsv", "jsonl", "datasets"),
    "name": ("datasets", "sacrebleu"),
    "split": ("datasets", "phrasebook"),
    "grammar": ("phrasebook",),
}
"""Kinds of corpora for which a setting says something."""

_GRADUATED = ("loss.graduated", lambda kind: kind != "none")
_PENALISED = ("decoding.length_penalty", lambda kind: kind != "none")
_READ_WITH: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "data.joiner": ("data.pretokenized", lambda given: given),
    "subwords.sampling_alpha": ("subwords.sampling_candidates", lambda count: count > 1),
    "loss.label_smoothing": ("loss.kind", lambda kind: kind == "label_smoothing"),
    "loss.beta": ("loss.kind", lambda kind: kind != "label_smoothing"),
    "loss.alpha": ("loss.kind", lambda kind: kind == "generalized_entropy"),
    "loss.teacher_temperature": ("loss.kind", lambda kind: kind == "distillation"),
    "loss.final_label_smoothing": ("loss.schedule", lambda kind: kind != "constant"),
    "loss.prior_temperature": ("loss.prior", lambda kind: kind == "unigram"),
    "loss.graduated_below": _GRADUATED,
    "loss.graduated_above": _GRADUATED,
    "loss.graduated_smoothing": _GRADUATED,
    "training.final_learning_rate": (
        "training.schedule",
        lambda kind: kind not in ("inverse_sqrt", "constant"),
    ),
    "decoding.length_alpha": _PENALISED,
    "decoding.length_excludes_eos": _PENALISED,
    "decoding.seed": ("decoding.strategy", lambda kind: kind != "beam"),
    "decoding.samples": ("decoding.strategy", lambda kind: kind == "mbr"),
}
"""For a setting: the one beside it that decides, and for which of its values something reads it."""


def _value(config: Config, key: str) -> Any:
    section, name = key.split(".")
    return getattr(getattr(config, section), name)
