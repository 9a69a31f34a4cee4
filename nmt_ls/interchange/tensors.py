"""Tensors in safetensors files, by name: nothing in such a file can run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from nmt_ls.errors import UserError

WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"


def read_tensors(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """(tensors by name, the file's text metadata) of a safetensors file.

    Raises:
      UserError: the file is missing or damaged, or has a type that numpy does not.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            names = file.keys()
            return {name: file.get_tensor(name) for name in names}, file.metadata() or {}
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None
    except SafetensorError as error:
        raise UserError(f"{path} is damaged or no safetensors file: {error}") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} has tensors of an unknown type: {error}") from None


def read_weights(folder: Path) -> dict[str, np.ndarray]:
    """All tensors of a Hugging Face folder, from one file or several.

    Raises:
      UserError: there is no safetensors file, or one is damaged. Pickles are never read.
    """
    if (folder / WEIGHTS).is_file():
        return read_tensors(folder / WEIGHTS)[0]
    if (folder / _INDEX).is_file():
        files = read_json(folder / _INDEX).get("weight_map")
        files = list(files.values()) if isinstance(files, dict) else []
        if not files or not all(isinstance(f, str) and Path(f).name == f for f in files):
            raise UserError(
                f"{folder / _INDEX} names no files beside it (weight_map); get it anew, or write "
                "it again with save_pretrained"
            )
        names = sorted(set(files))
        return {k: v for name in names for k, v in read_tensors(folder / name)[0].items()}
    if (folder / "pytorch_model.bin").is_file():
        raise UserError(
            f"{folder} has its weights only in pytorch_model.bin, a pickle, which may run code; "
            "convert it:\n"
            "MarianMTModel.from_pretrained(DIR).save_pretrained(DIR) of transformers writes "
            f"{WEIGHTS}"
        )
    raise UserError(f"{folder} has no {WEIGHTS}")


def write_tensors(path: Path, tensors: Mapping[str, Any], metadata: Mapping[str, str]) -> None:
    """Write a safetensors file; the same tensors give the same bytes."""
    from safetensors.numpy import save_file

    # Not contiguous ones would be written as they lie in memory.
    arrays = {name: np.ascontiguousarray(tensors[name]) for name in sorted(tensors)}
    save_file(arrays, path, dict(metadata))


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
      UserError: the file is missing or holds something else.
    """
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{path} is no JSON object")
    return found


def write_json(path: Path, content: Any) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
