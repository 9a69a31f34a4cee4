"""Which settings of our search other toolkits have."""

import dataclasses
from collections.abc import Sequence

from nmt_ls.config import DecodingConfig

OURS_ALONE = (
    "strategy",
    "groups",
    "min_length_ratio",
    "length_excludes_eos",
    "unmix",
    "temperature",
)
"""Settings of `decoding` that neither CTranslate2 nor Hugging Face's beam search has."""

SHORTEST = ("min_length", "no_repeat_ngram")
"""Both have these, by other names."""


def changed(decoding: DecodingConfig, names: Sequence[str] = OURS_ALONE) -> list[str]:
    """Those of the settings that are not as by default, as in `decoding.temperature=0.8`."""
    default = DecodingConfig()
    return [
        f"decoding.{name}={getattr(decoding, name)}"
        for name in names
        if getattr(decoding, name) != getattr(default, name)
    ]


def without(decoding: DecodingConfig, names: Sequence[str] = OURS_ALONE) -> DecodingConfig:
    """The same search with the defaults of these settings."""
    default = DecodingConfig()
    return dataclasses.replace(
        decoding, unmix_mass=0.0, **{name: getattr(default, name) for name in names}
    )


def not_expressed(decoding: DecodingConfig) -> list[str]:
    """Settings of a run's search that its export does without."""
    gnmt = decoding.length_penalty == "gnmt"
    return changed(decoding) + (["decoding.length_penalty=gnmt"] if gnmt else [])


def power_of_length(decoding: DecodingConfig) -> float:
    """The exponent of the length that a score is divided by, the end counted; 1 for GNMT's."""
    return {"none": 0.0, "average": decoding.length_alpha}.get(decoding.length_penalty, 1.0)
