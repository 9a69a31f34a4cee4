"""How a sweep was done, from what its caller says and what its runs say of themselves."""

import dataclasses
import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from nmt_ls.config import Config, LossConfig
from nmt_ls.data.prepare import given_subwords
from nmt_ls.evaluation.significance import ALPHA
from nmt_ls.study.comparison import Run
from nmt_ls.study.decision import SEEDS_NEEDED
from nmt_ls.study.strength import STRENGTHS, losses_of, strength_in, symbol_of


def protocol_rows(comparison: dict, runs: Sequence[Run], protocol: dict) -> list[tuple[str, str]]:
    """What the caller says, then what the runs say of themselves; all that differs is listed."""
    rows = list(_flatten("", protocol))
    for name in ("checkpoint", "decode"):
        found = _distinct(
            results[name] for run in runs for results in run["results"].values() if name in results
        )
        if found and name not in protocol:
            rows.append((name, found))
    for metric in ("bleu", "chrf", "ter"):
        found = _distinct(
            signature
            for result in comparison["tests"].values()
            for signature in result["signatures"][metric]
            if signature
        )
        if found:
            rows.append((f"{metric} signature", found))
    rows += [("claims", _claims(comparison))]
    environments = [run["environment"] for run in runs if "environment" in run]
    for name in dict.fromkeys(name for found in environments for name in found):
        rows.append((name, _distinct(found[name] for found in environments if name in found)))
    return rows


def _claims(comparison: dict) -> str:
    losses = losses_of(comparison).values()
    deciding = (comparison.get("pooled") or comparison["tests"]).values()
    bases = (strength_in(block).value(block["baseline"]) for block in deciding)
    base = " or ".join(dict.fromkeys(bases))
    return (
        f"differences in BLEU from {base}, of all test sets together: paired t-test over seeds "
        f"({SEEDS_NEEDED} at least), Holm’s correction over {symbol_of(losses)}, "
        f"α = {ALPHA:g}"
    )


_ASKED_FOR = {
    "adjusted": (
        "likelihood and calibration after temperature and un-mixing (it takes data.validation)",
        "fit=true",
    ),
    "beam_curve": ("beam sizes", "beams=[1,5,50]"),
    "strategies": ("sampling and minimum Bayes risk", "strategies=[sample,mbr]"),
    "empty_better": ("empty translations", "empty=true"),
    "by_word_frequency": (
        "words by their frequency in training (it takes the training text)",
        "word_frequency=true",
    ),
    "projection": ("hidden states", "projection=true"),
}
"""What results hold only if asked: in words, and the setting of `evaluation` that asks for it."""


def not_measured(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """What no run has measured, and the setting that has it measured, as a shell wants it."""
    results = [one for run in runs for one in run["results"].values()]
    return [
        (words, shlex.quote(f"evaluation.{setting}"))
        for name, (words, setting) in _ASKED_FOR.items()
        if not any(one.get(name) for one in results)
    ]


def _flatten(prefix: str, values: dict) -> Iterable[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flatten(f"{prefix}{name}.", value)
        else:
            yield f"{prefix}{name}", _plain(value)


def _distinct(values: Iterable[Any]) -> str:
    return "; ".join(dict.fromkeys(map(_plain, values)))


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {_plain(item)}" for name, item in value.items())
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return str(value)


def kind_of_subwords(config: Config) -> str:
    """`unigram`, or whose they are."""
    if given := given_subwords(config):
        return f"of {' and '.join(given.values())}"
    return "tokens of the text as it is" if config.data.pretokenized else config.subwords.algorithm


def described(
    configs: Sequence[Config],
    settings: Sequence[Mapping[str, Any]],
    truth: dict[str, dict[str, Any]],
) -> dict[str, Any]:
    """How the runs were made; what differs between them is listed."""
    protocol: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in settings for key in one):
        protocol[f"grid of {key}"] = listed(one[key] for one in settings if key in one)
    protocol |= _merged([_protocol_of(config) for config in configs])
    protocol["seeds"] = listed(config.seed for config in configs)
    for name, values in truth.items():
        protocol[f"{name}: sentences that the grammar has"] = f"{values['sentences_in_all']:,}"
    return protocol


def pairs_of(run_dir: Path) -> str:
    """How many pairs a run was trained on, of how many there were."""
    found = json.loads((run_dir / "data.json").read_text(encoding="utf-8"))
    return f"{found['pairs_kept']:,} of {found['pairs_read']:,}"


def _merged(protocols: Sequence[dict[str, Any]]) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for key in dict.fromkeys(key for one in protocols for key in one):
        found = [one[key] for one in protocols if key in one]
        if all(isinstance(value, dict) for value in found):
            merged[key] = _merged(found)
        else:
            merged[key] = found[0] if found.count(found[0]) == len(found) else listed(found)
    return merged


def listed(values: Iterable[Any]) -> str:
    """What is different of them, each once."""
    return "; ".join(dict.fromkeys(map(str, values)))


def _protocol_of(config: Config) -> dict[str, Any]:
    t, symbol = config.training, STRENGTHS[config.loss.kind].symbol
    if t.patience:
        stopping = f"early stopping on {t.best_metric}, patience {t.patience}"
    else:
        stopping = f"{t.max_steps} steps for every {symbol}, no early stopping"
    average = f"average of the last {t.average_last} checkpoints, {t.checkpoint_every} steps apart"
    validated = config.data.validation is not None and t.validate_every
    best = f"best by {t.best_metric}" if validated else "last"
    protocol: dict[str, Any] = {
        "steps": stopping,
        "checkpoint rule": average if t.average_last else best,
        "languages": f"{config.data.source_language} → {config.data.target_language}",
        "smoothing convention": config.loss.convention,
        **_other_settings_of_the_loss(config),
        "model": {
            name: getattr(config.model, name)
            for name in ("encoder_layers", "decoder_layers", "width", "feed_forward", "dropout")
        },
        "batch": f"{t.batch_tokens} target positions",
        "learning rate": f"{t.learning_rate:g}, {t.schedule}, {t.warmup_steps} warm-up steps",
    }
    if config.loss.kind != "label_smoothing":
        protocol[symbol] = f"loss.beta of {config.loss.kind}"
    return protocol


def _other_settings_of_the_loss(config: Config) -> dict[str, str]:
    ours, default = (dataclasses.asdict(c) for c in (config.loss, LossConfig()))
    told = {"label_smoothing", "beta", "convention"}
    changed = {k: v for k, v in ours.items() if v != default[k] and k not in told}
    return {f"loss.{name}": str(value) for name, value in changed.items()}
