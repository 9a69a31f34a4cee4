"""Do stored results hold what would be measured now?"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nmt_ls.config import Config, DecodingConfig
from nmt_ls.config_languages import bleu_tokenizer
from nmt_ls.errors import UserError
from nmt_ls.evaluation.tokenizers import tokenizer_in


def read_results(run_dir: Path) -> dict[str, dict[str, Any]]:
    """results.json of a run, by test set.

    Raises:
      UserError: it is empty, cut off or something else.
      FileNotFoundError: there is none.
    """
    path = run_dir / "results.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:  # no JSON, or no UTF-8
        found = None
    if not isinstance(found, dict) or not all(isinstance(one, dict) for one in found.values()):
        raise UserError(f"{path} is damaged; evaluate {run_dir.name} again")
    return found


def decisive_decoding(config: Config) -> dict[str, Any]:
    """The settings of `decoding` that decide what is measured, by name.

    Not the number of sentences at a time, nor where nothing is drawn how it would be.
    """
    decoding = dataclasses.asdict(config.decoding)
    drawn = config.decoding.strategy != "beam" or config.evaluation.strategies
    for name in ("batch_sentences", *(() if drawn else ("samples", "seed"))):
        del decoding[name]
    return decoding


def other_decoding(results: Mapping[str, Any], config: Config) -> list[str]:
    """The settings of `decoding` that results were measured with other values of; none of results
    that were not measured. Settings that there were not yet had their defaults.
    """
    if "decode" not in results:
        return []
    then = dataclasses.asdict(DecodingConfig()) | results["decode"]
    return [name for name, now in decisive_decoding(config).items() if then[name] != now]


def other_tokenizer(results: Mapping[str, Any], config: Config) -> bool:
    """Whether the BLEU of results is of words that were split otherwise than would be now."""
    signature = results.get("bleu_signature")
    return signature is not None and tokenizer_in(signature) != bleu_tokenizer(config)


def is_complete(
    results: Mapping[str, Any], config: Config, fingerprint: str, validation: str = ""
) -> bool:
    """Whether a test set's results need not be measured again under a configuration.

    What they hold beyond it does not matter, nor what could not be measured: that is there as null.

    Args:
      results: as `evaluate` returned and results.json holds them; empty for a set without any.
      config: of the run, as it is now. `data.train` and the model are the run's own.
      fingerprint: of the test set, as it is now.
      validation: of the validation text, on which adjustments are fitted; empty: not compared.
    """
    if "decode" not in results or results.get("fingerprint") != fingerprint:
        return False
    if other_decoding(results, config) or other_tokenizer(results, config):
        return False
    asked = config.evaluation
    single = {
        "adjusted": asked.fit and config.data.validation is not None,
        "empty_better": asked.empty,
        "by_word_frequency": asked.word_frequency,
        "projection": asked.projection,
        "bleu_lowercase_tokenized": asked.lowercase_tokenized,
    }
    # Results that are older than `fitted_on` do not say; they are taken at their word.
    if single["adjusted"] and validation not in ("", results.get("fitted_on", validation)):
        return False
    beams = {point["beam"] for point in results.get("beam_curve") or ()}
    sample = results.get("training") or {}
    return (
        all(name in results for name, wanted in single.items() if wanted)
        and set(asked.beams) <= beams
        and set(asked.strategies) <= set(results.get("strategies") or ())
        and asked.training_pairs in (0, sample.get("pairs"), sample.get("sentences"))
        and (not asked.comet or results.get("comet_model") == Path(asked.comet).name)
    )
