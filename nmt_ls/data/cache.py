"""Folders that are there whole or not at all, and Arrow tables written in a stream.

A folder is named after the fingerprint of what it was made from, is written beside its place and
renamed into it, and carries a manifest of its files. A folder that does not match its manifest is
built again.
"""

import contextlib
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import datasets
import pyarrow as pa

from nmt_ls.config import DataConfig
from nmt_ls.file_lock import file_lock

ROWS = 100_000
"""Rows of one Arrow record batch: few chunks, each small beside the corpus."""

_MANIFEST = "manifest.json"


def cache_root(data: DataConfig) -> Path:
    """Where tables are cached: `data.cache_dir`, else `$NMT_LS_CACHE`, else `~/.cache/nmt_ls`."""
    named = data.cache_dir or os.environ.get("NMT_LS_CACHE") or "~/.cache/nmt_ls"
    return Path(named).expanduser()


def hash_of(value: Any) -> str:
    """128-bit hexadecimal digest of a JSON-able value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def hash_of_file(path: str | os.PathLike[str]) -> str:
    """128-bit hexadecimal digest of a file's bytes, read in a stream."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def hashed_below(folder: Path) -> list[list[str]]:
    """[name, digest] of each file below a folder; hidden and compiled ones do not count."""
    files = {p.relative_to(folder): p for p in folder.rglob("*") if p.is_file()}
    return [
        [name.as_posix(), hash_of_file(path)]
        for name, path in sorted(files.items())
        if name.suffix != ".pyc" and not any(part.startswith(".") for part in name.parts)
    ]


def cached_folder(
    folder: Path, build: Callable[[Path], None], log: Callable[[str], None] = lambda line: None
) -> Path:
    """The folder, built by `build(temporary folder)` unless an intact one is there.

    Processes that want the same folder wait for the first of them; on a file system without locks
    each builds it. Whatever `build` raises leaves nothing behind.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(file_lock(folder.parent / f".{folder.name}.lock", wait=True))
            alone = True
        except OSError:
            alone = False
        if _is_intact(folder):
            return folder
        if folder.exists():
            log(f"the cache {folder} is damaged; it is built again")
            shutil.rmtree(folder, ignore_errors=not alone)
        if alone:
            for left_over in folder.parent.glob(f".{folder.name}.building-*"):
                shutil.rmtree(left_over, ignore_errors=True)
        building = folder.parent / f".{folder.name}.building-{uuid4().hex}"
        building.mkdir()
        try:
            build(building)
            _seal(building)
            try:
                building.rename(folder)
            except OSError:  # another was faster, who may not write our lock
                if not _is_intact(folder):
                    raise
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return folder


def _seal(folder: Path) -> None:
    files = {
        path.name: [path.stat().st_size, hash_of_file(path)] for path in sorted(folder.iterdir())
    }
    (folder / _MANIFEST).write_text(json.dumps(files, indent=1))


def _is_intact(folder: Path) -> bool:
    try:
        files = json.loads((folder / _MANIFEST).read_text())
        return all(
            (folder / name).stat().st_size == size and hash_of_file(folder / name) == digest
            for name, (size, digest) in files.items()
        )
    except (OSError, ValueError, TypeError, AttributeError):
        return False


def write_table(
    path: Path, features: datasets.Features, tables: Iterable[pa.Table | pa.RecordBatch]
) -> int:
    """Writes the tables as one Arrow stream of `ROWS` rows a batch; returns the number of rows."""
    schema = features.arrow_schema
    rows = 0
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for table in _regrouped(tables, schema):
            rows += table.num_rows
            writer.write_table(table, max_chunksize=ROWS)
    return rows


def _regrouped(tables: Iterable[Any], schema: pa.Schema) -> Iterator[pa.Table]:
    waiting: list[pa.Table] = []
    rows = 0
    for table in tables:
        if isinstance(table, pa.RecordBatch):
            table = pa.Table.from_batches([table])
        waiting.append(table.cast(schema))
        rows += table.num_rows
        while rows >= ROWS:
            joined = pa.concat_tables(waiting)
            yield joined.slice(0, ROWS).combine_chunks()
            waiting = [joined.slice(ROWS)]
            rows -= ROWS
    if rows:
        yield pa.concat_tables(waiting).combine_chunks()


def read_table(path: Path) -> datasets.Dataset:
    """The memory-mapped table."""
    return datasets.Dataset.from_file(str(path))


@contextlib.contextmanager
def quiet_datasets() -> Iterator[None]:
    """Without the progress bars of `datasets`, which would mix with our own progress lines."""
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()
