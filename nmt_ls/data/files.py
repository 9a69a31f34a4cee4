"""Sentence pairs from files of text, TSV and JSONL, a line at a time."""

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nmt_ls.config import CorpusConfig, DataConfig
from nmt_ls.data import hub
from nmt_ls.errors import UserError


def _file(name: str, key: str, data: DataConfig) -> Path:
    if not name:
        raise UserError(f"{key} names no file")
    path = Path(data.root).expanduser() / Path(name).expanduser()
    if path.is_dir():
        raise UserError(f"{key}: {path} is a folder, not a file")
    try:
        with open(path, "rb") as file:
            if not file.read(1):
                raise UserError(f"{key}: {path} is empty")
    except FileNotFoundError:
        raise UserError(f"{key}: no file {path} (data.root={data.root})") from None
    except (PermissionError, NotADirectoryError) as error:
        raise UserError(f"{key}: cannot read {path}: {error.strerror}") from None
    return path


def text_files(corpus: CorpusConfig, data: DataConfig, label: str) -> list[Path]:
    """The source file and the reference files of a corpus of kind text.

    Raises:
        UserError: one is not named, missing, empty or a folder.
    """
    targets = hub.names_of(corpus.target) or ("",)
    return [
        _file(corpus.source, f"{label}.source", data),
        *(_file(name, f"{label}.target", data) for name in targets),
    ]


def one_file(corpus: CorpusConfig, data: DataConfig, label: str) -> Path:
    """The file of a corpus of kind tsv or jsonl.

    Raises:
        UserError: it is not named, missing, empty or a folder.
    """
    return _file(corpus.path, f"{label}.path", data)


def _decoded(line: bytes, path: Path, number: int) -> str:
    if number == 1:
        line = line.removeprefix(codecs.BOM_UTF8)
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError as error:
        raise UserError(
            f"{path}, line {number}: not UTF-8 (byte 0x{line[error.start]:02x} at position "
            f"{error.start + 1}); convert the file to UTF-8"
        ) from None


def _lines(path: Path) -> Iterator[str]:
    with open(path, "rb") as file:  # a binary file ends its lines at b"\n" alone
        for number, line in enumerate(file, 1):
            yield _decoded(line, path, number)


def text_rows(paths: list[Path]) -> Iterator[tuple[str, list[str]]]:
    """(source, references) of aligned files.

    Raises:
        UserError: unequal numbers of lines, where that shows before or behind the last pair that
            is asked for; a line that is not UTF-8.
    """
    columns = [_lines(path) for path in paths]
    source, *targets = columns
    nothing = object()
    for first in source:
        others = [next(column, nothing) for column in targets]
        if any(other is nothing for other in others):
            _refuse_unequal(paths)
        yield first, others  # type: ignore[misc]
    if any(next(column, nothing) is not nothing for column in targets):
        _refuse_unequal(paths)


def _refuse_unequal(paths: list[Path]) -> None:
    counts = [_count_lines(path) for path in paths]
    other = next(i for i, count in enumerate(counts) if count != counts[0])
    raise UserError(
        f"{paths[0]} has {counts[0]} lines but {paths[other]} has {counts[other]}; "
        "line n of one must be the translation of line n of the other"
    )


def _count_lines(path: Path) -> int:
    def blocks(file: BinaryIO) -> Iterator[bytes]:
        while block := file.read(1 << 20):
            yield block

    count, last = 0, b"\n"
    with open(path, "rb") as file:
        for block in blocks(file):
            count += block.count(b"\n")
            last = block[-1:]
    return count + (last != b"\n")


def tsv_rows(path: Path, corpus: CorpusConfig) -> Iterator[tuple[str, list[str]]]:
    """(source, references) of tab-separated columns, unquoted; by name where a header names them.

    Raises:
        UserError: a column is missing, or a line is not UTF-8.
    """
    wanted = [corpus.source or "1", *(name or "2" for name in hub.names_of(corpus.target) or ("",))]
    lines = _lines(path)
    start = 1
    if all(name.isdecimal() for name in wanted):
        columns = [int(name) - 1 for name in wanted]
        if min(columns) < 0:
            raise UserError("the columns of a TSV file are counted from 1, not 0")
    else:
        header = next(lines).split("\t")
        start = 2
        columns = []
        for name in wanted:
            if name in header:
                columns.append(header.index(name))
            elif name.isdecimal() and 0 < int(name) <= len(header):
                columns.append(int(name) - 1)
            else:
                raise UserError(
                    f"{path} has no column {name!r}; its first line names {', '.join(header)}"
                )
    for number, line in enumerate(lines, start):
        fields = line.split("\t")
        if len(fields) <= max(columns):
            raise UserError(
                f"{path}, line {number}: {len(fields)} tab-separated columns, "
                f"but column {max(columns) + 1} is wanted"
            )
        source, *targets = (fields[column] for column in columns)
        yield source, targets


def jsonl_rows(
    path: Path, corpus: CorpusConfig, data: DataConfig
) -> Iterator[tuple[str, list[str]]]:
    """(source, references) of one JSON object a line; blank lines are skipped.

    Raises:
        UserError: a line is no JSON object, lacks a key, or holds something other than text.
    """
    source_key, target_keys = corpus.source, hub.names_of(corpus.target) or ("",)
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise UserError(f"{where}: not JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{where}: not a JSON object")
        if not source_key:
            source_key = hub.usual_key(row, data.source_language, "source", f"{where}: source")
        if target_keys == ("",):
            target_keys = (hub.usual_key(row, data.target_language, "target", f"{where}: target"),)
        source = _string(_at(row, source_key, where), source_key, where)
        references: list[str] = []
        for key in target_keys:
            value = _at(row, key, where)
            values = value if isinstance(value, list) else [value]
            references += [_string(item, key, where) for item in values]
        if not references:
            raise UserError(f"{where}: {target_keys[0]!r} holds no reference")
        yield source, references


def _at(row: dict[str, Any], key: str, where: str) -> Any:
    if key in row:
        return row[key]
    value: Any = row
    for part in key.split("."):
        if not isinstance(value, dict) or part not in value:
            raise UserError(f"{where}: no key {key!r}; there are {', '.join(map(repr, row))}")
        value = value[part]
    return value


def _string(value: Any, key: str, where: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise UserError(f"{where}: {key!r} is not a string: {str(value)[:40]}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise UserError(
            f"{where}: {key!r} has half of a surrogate pair, which is no text"
        ) from None
    return value
