"""plan.json: read, checked, and put in place while other calls do the same."""

import json
import os
import uuid
from pathlib import Path
from typing import Any

from nmt_ls.errors import UserError

Entry = dict[str, Any]
"""One run of plan.json: `run` (its directory), `label_smoothing` (its strength: ε, or β where the
loss has no ε), `seed`, `settings` (the grid's, by dotted key) and `group`."""


def read_plan(sweep_dir: Path) -> list[Entry]:
    """The entries of plan.json; none where there is no such file.

    Raises:
      UserError: it is not a plan.
    """
    return entries_of(sweep_dir / "plan.json", text_of(sweep_dir / "plan.json"))


def text_of(path: Path) -> str | None:
    """The file as it is; None where there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return None


def entries_of(path: Path, text: str | None) -> list[Entry]:
    """The runs that a plan's text lists; none where there is no text.

    Raises:
      UserError: it is not a plan; `path` is named.
    """
    if text is None:
        return []
    try:
        entries = json.loads(text)["runs"]
        return [
            {
                "run": str(entry["run"]),
                "label_smoothing": float(entry["label_smoothing"]),
                "seed": int(entry["seed"]),
                "settings": dict(entry.get("settings", {})),
                **({"group": int(entry["group"])} if "group" in entry else {}),
            }
            for entry in entries
        ]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not a sweep's plan ({error!r})") from None


def write_plan(path: Path, text: str, *, new: bool) -> bool:
    """Write beside and put in place; False if it should be new and another call was faster."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Processes on several machines may share a number.
    beside = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    beside.write_text(text, encoding="utf-8")
    try:
        if not new:
            os.replace(beside, path)
            return True
        try:
            os.link(beside, path)
        except FileExistsError:
            return False
        except OSError:  # a file system without hard links
            os.replace(beside, path)
        return True
    finally:
        beside.unlink(missing_ok=True)
