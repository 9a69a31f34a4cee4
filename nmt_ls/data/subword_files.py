"""The files of a run that hold its subwords."""

import json
import os
from pathlib import Path
from typing import Any

from nmt_ls.data.segmenters import read_model
from nmt_ls.data.vocabularies import Vocabulary
from nmt_ls.errors import UserError

MODEL_FILE = "subwords.model"
SOURCE_MODEL_FILE = "source_subwords.model"
SETTINGS_FILE = "subwords.json"
VOCABULARY_FILE = "vocabulary.json"


def write_subwords(
    folder: Path,
    settings: dict[str, Any],
    target_model: bytes,
    source_model: bytes | None,
    vocabulary: Vocabulary | None,
) -> None:
    """Write models and settings, and the vocabulary where there is one; each file is whole or not
    there.

    Args:
        folder: The run's directory.
        settings: The other fields of `Subwords`, and `joint`.
        target_model: Serialised, of the target side or of both.
        source_model: Of the source side; None where both have one.
        vocabulary: Ids that are not the models' own.
    """
    files = {MODEL_FILE: target_model}
    if vocabulary is not None:
        settings = settings | {"vocabulary": VOCABULARY_FILE}
        files[VOCABULARY_FILE] = vocabulary.to_json()
    if source_model is not None:
        files[SOURCE_MODEL_FILE] = source_model
    files[SETTINGS_FILE] = (json.dumps(settings, indent=1) + "\n").encode()
    for name, content in files.items():
        beside = folder / f".{name}.{os.getpid()}"
        beside.write_bytes(content)
        beside.replace(folder / name)


def read_subwords(folder: Path) -> tuple[dict[str, Any], bytes, bytes | None, Vocabulary | None]:
    """What `write_subwords` wrote: (settings without `joint`, target model, source model,
    vocabulary).

    Raises:
        UserError: a file is missing or damaged.
    """
    try:
        settings = json.loads((folder / SETTINGS_FILE).read_text())
        joint = settings.pop("joint")
    except OSError:
        raise UserError(f"{folder / SETTINGS_FILE} is missing: not a run directory?") from None
    except (ValueError, KeyError, AttributeError):
        raise UserError(f"{folder / SETTINGS_FILE} is damaged") from None
    target = read_model(folder / MODEL_FILE, "the run")
    source = None if joint else read_model(folder / SOURCE_MODEL_FILE, "the run")
    vocabulary = None
    if settings.pop("vocabulary", None):
        try:
            vocabulary = Vocabulary.from_json((folder / VOCABULARY_FILE).read_bytes())
        except (OSError, ValueError, TypeError, AttributeError):
            raise UserError(f"{folder / VOCABULARY_FILE} is missing or damaged") from None
    return settings, target, source, vocabulary
