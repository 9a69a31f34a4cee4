"""Which settings of our search other toolkits have."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from nmt_ls.config import DecodingConfig

_OURS_ALONE = (
    "strategy",
    "groups",
    "min_length_ratio",
    "length_excludes_eos",
    "unmix",
    "temperature",
)
"""Settings of `decoding` that neither CTranslate2 nor Hugging Face's beam search has."""


def not_expressed(decoding: DecodingConfig) -> list[str]:
    """Settings that an exported run's search does without, as in `decoding.temperature=0.8`."""
    gnmt = decoding.length_penalty == "gnmt"
    return _changed(decoding, _OURS_ALONE) + (["decoding.length_penalty=gnmt"] if gnmt else [])


def power_of_length(decoding: DecodingConfig) -> float:
    """The exponent of the length that a score is divided by, the end counted; 1 for GNMT's."""
    return {"none": 0.0, "average": decoding.length_alpha}.get(decoding.length_penalty, 1.0)


_GENERATION = {
    "num_beams": "beam",
    "length_penalty": "length_alpha",
    "no_repeat_ngram_size": "no_repeat_ngram",
    "min_new_tokens": "min_length",
}
"""Hugging Face's name of each setting that `generate` shares with us, and ours."""


def generation_of(decoding: DecodingConfig) -> dict[str, float]:
    """What `generate` shares with us, as `generation_config.json` says it."""
    ours = dataclasses.replace(decoding, length_alpha=power_of_length(decoding))
    return {theirs: getattr(ours, name) for theirs, name in _GENERATION.items()}


def decoding_of(generation: Mapping[str, Any]) -> tuple[DecodingConfig, list[str]]:
    """(the search of a `generation_config.json`, settings in it that ours cannot have).

    The inverse of `generation_of`; what is not there is as by default.
    """
    found: dict[str, Any] = {}
    refused = []
    for theirs, name in _GENERATION.items():
        value, least = generation.get(theirs), int(name == "beam")
        if value is None:
            continue
        whole = type(value) is int or (name == "length_alpha" and type(value) is float)
        if whole and least <= value < (201 if name == "beam" else math.inf):
            found[name] = float(value) if name == "length_alpha" else value
        else:
            refused.append(f"{theirs}={value}")
    return dataclasses.replace(DecodingConfig(), **found), refused


def plain_search(decoding: DecodingConfig) -> tuple[DecodingConfig, list[str]]:
    """Beam search as all toolkits make it, to be compared, and the settings that it does without.

    The length penalty stays: others have all but GNMT's.
    """
    names = (*_OURS_ALONE, "min_length", "no_repeat_ngram")
    defaults: dict[str, Any] = {name: getattr(DecodingConfig(), name) for name in names}
    plain = dataclasses.replace(decoding, unmix_mass=0.0, **defaults)
    return plain, _changed(decoding, names)


def _changed(decoding: DecodingConfig, names: Sequence[str]) -> list[str]:
    default = DecodingConfig()
    return [
        f"decoding.{name}={getattr(decoding, name)}"
        for name in names
        if getattr(decoding, name) != getattr(default, name)
    ]
