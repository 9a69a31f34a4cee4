"""Trained runs, with what the command line says of decoding."""

import argparse
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nmt_ls.errors import UserError

_OF_BEAMS = ("beam", "length_penalty", "length_alpha", "length_excludes_eos")
"""Options that beam search alone reads. A run keeps its own with every strategy."""


def loaded_runs(arguments: argparse.Namespace, runs: Sequence[Path]) -> list[Any]:
    """The runs that an option names, their configurations changed by the other options.

    Raises:
      UserError: no such run; settings that are not of decoding or evaluation, or that do not go
        together.
    """
    from nmt_ls.config_files import with_settings
    from nmt_ls.training.runs import load_run

    given = {
        f"decoding.{name}": getattr(arguments, name, None)
        for name in (*_OF_BEAMS, "strategy", "temperature")
    }
    given = {key: value for key, value in given.items() if value is not None}
    given |= _unmixing(getattr(arguments, "unmix", None))
    overrides = getattr(arguments, "set", [])
    for override in overrides:
        if not override.startswith(("decoding.", "evaluation.")):
            raise UserError(
                f"--set {override}: of a trained run only decoding and evaluation can be set"
            )
    loaded = [load_run(path, arguments.checkpoint) for path in runs]
    loaded = [
        dataclasses.replace(r, config=with_settings(r.config, given, overrides)) for r in loaded
    ]
    _refuse_beams(
        loaded[0].config.decoding, {*given, *(o.partition("=")[0].strip() for o in overrides)}
    )
    return loaded


def _refuse_beams(decoding: Any, given: set[str]) -> None:
    if decoding.strategy == "beam":
        return
    for name in _OF_BEAMS:
        if f"decoding.{name}" in given:
            raise UserError(
                f"decoding.{name}={getattr(decoding, name)} has no effect with "
                f"decoding.strategy={decoding.strategy}; leave it out"
            )


def _unmixing(text: str | None) -> dict[str, Any]:
    if text is None:
        return {}
    if text in ("none", "exact"):
        return {"decoding.unmix": text, "decoding.unmix_mass": 0.0}
    try:
        return {"decoding.unmix": "given", "decoding.unmix_mass": float(text)}
    except ValueError:
        raise UserError(f"--unmix {text}: none, exact, or a share such as 0.1") from None
