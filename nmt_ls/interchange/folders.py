"""Folders that are there whole or not at all."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from nmt_ls.errors import UserError


@contextlib.contextmanager
def whole_folder(folder: Path, option: str) -> Iterator[Path]:
    """A new folder beside `folder` to write into; it gets its name when all is written.

    Args:
      folder: where the result shall be; missing or empty.
      option: what the caller named it with, for messages (`--output`).

    Raises:
      UserError: something is there already.
    """
    folder = Path(folder).absolute()
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise UserError(f"{option} {folder}: is there already; choose another, or remove it")
    folder.parent.mkdir(parents=True, exist_ok=True)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        yield beside
        if folder.is_dir():
            folder.rmdir()
        beside.rename(folder)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
