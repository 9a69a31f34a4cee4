"""Sentence pairs from whatever Hugging Face `datasets` loads."""

import csv
import errno
import glob
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc

from nmt_ls.config import CorpusConfig, DataConfig
from nmt_ls.data.cache import cache_root, hash_of, hash_of_file, hashed_below, quiet_datasets
from nmt_ls.errors import UserError

_BUILDERS = {
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".csv": "csv",
    ".tsv": "csv",
    ".json": "json",
    ".jsonl": "json",
}
# "NA" and "null" are words, and a quotation mark in a TSV file is one, as with `kind: tsv`.
_WORDS = {"keep_default_na": False, "na_filter": False}
_OPTIONS: dict[str, dict[str, Any]] = {
    **{suffix: {} for suffix in _BUILDERS},
    ".csv": _WORDS,
    ".tsv": {**_WORDS, "sep": "\t", "quoting": csv.QUOTE_NONE},
}
_ROWS = 20_000


def load(corpus: CorpusConfig, data: DataConfig, key: str, split: str) -> datasets.Dataset:
    """The table that `corpus.path` names: saved folder, files, folder of files, or hub name.

    Args:
        corpus: `path`, `name`, `split` and `size` are used.
        data: `root` of relative paths.
        key: The corpus's key in the configuration, for messages.
        split: The split that is taken where the corpus names none.

    Raises:
        UserError: nothing is there, or `datasets` cannot load it.
    """
    if not corpus.path:
        raise UserError(f"{key}.path: name a dataset of the hub, a file or a folder")
    try:
        with quiet_datasets():
            table = _load(corpus, data, key, split)
    except UserError:
        raise
    except Exception as error:  # datasets raises a dozen types, its own and its readers'
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
        reason = " ".join(str(error).split()) or type(error).__name__
        raise UserError(f"{key}: datasets cannot load {corpus.path!r}: {reason[:300]}") from None
    if corpus.size:
        table = table.select(range(min(corpus.size, len(table))))
    return table


def _load(corpus: CorpusConfig, data: DataConfig, key: str, split: str) -> datasets.Dataset:
    local = Path(data.root).expanduser() / Path(corpus.path).expanduser()
    suffix = Path(corpus.path).suffix.lower()
    if _is_saved(local):
        return _saved(local, corpus, key, split)
    if local.is_dir():
        return datasets.load_dataset(
            str(local), corpus.name or None, split=corpus.split or split,
            cache_dir=_own_cache(data, hashed_below(local)),
        )  # fmt: skip
    if suffix in _BUILDERS:
        files = [str(path) for path in local_files(corpus, data)]
        if not files:
            raise UserError(f"{key}.path: no file {local} (data.root={data.root})")
        return datasets.load_dataset(
            _BUILDERS[suffix], data_files=files, split=corpus.split or "train",
            cache_dir=_own_cache(data, [[path, hash_of_file(path)] for path in files]),
            **_OPTIONS[suffix],
        )  # fmt: skip
    if local.is_file():
        raise UserError(f"{key}.path: {local} is none of {', '.join(_BUILDERS)}")
    return datasets.load_dataset(corpus.path, corpus.name or None, split=corpus.split or split)


def _own_cache(data: DataConfig, content: list[list[str]]) -> str:
    """Where `datasets` is to keep its copy of local files: by what is in them.

    It goes by names and times, and would give back the old rows of a file that was replaced by one
    of the same time, as `rsync -a` and images of containers do.
    """
    return str(cache_root(data) / "datasets" / hash_of(content))


def local_files(corpus: CorpusConfig, data: DataConfig) -> list[Path]:
    """The files that `corpus.path` names, or a pattern with stars does; empty for all else."""
    local = Path(data.root).expanduser() / Path(corpus.path).expanduser()
    if local.suffix.lower() not in _BUILDERS or local.is_dir():
        return []
    return [local] if local.is_file() else sorted(map(Path, glob.glob(str(local))))


def folder_of_files(corpus: CorpusConfig, data: DataConfig) -> Path | None:
    """The local folder of files that `corpus.path` names; None for all else, saved ones too."""
    local = Path(data.root).expanduser() / Path(corpus.path).expanduser()
    return local if local.is_dir() and not _is_saved(local) else None


def _is_saved(folder: Path) -> bool:
    """Whether it was written by `save_to_disk`."""
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def _saved(folder: Path, corpus: CorpusConfig, key: str, split: str) -> datasets.Dataset:
    saved = datasets.load_from_disk(str(folder))
    if isinstance(saved, datasets.Dataset):
        saved = datasets.DatasetDict({str(saved.split or split): saved})
        split = corpus.split or next(iter(saved))
    else:
        split = corpus.split or split
    sizes = {name: len(part) for name, part in saved.items()}
    parts = datasets.ReadInstruction.from_spec(split).to_absolute(sizes)
    chosen = [saved[p.splitname].select(range(p.from_, p.to)) for p in parts]
    return chosen[0] if len(chosen) == 1 else datasets.concatenate_datasets(chosen)


def names_of(target: str | tuple[str, ...]) -> tuple[str, ...]:
    """The target setting as a tuple of references."""
    return (target,) if isinstance(target, str) else target


def usual_key(row: Mapping[str, Any], language: str, side: str, where: str) -> str:
    """The key of a side that the configuration does not name: `translation.de`, `de` or `target`.

    Raises:
        UserError: none of them is there.
    """
    nested = row.get("translation")
    if isinstance(nested, Mapping) and language in nested:
        return f"translation.{language}"
    for key in (language, side):
        if key in row:
            return key
    raise UserError(f"{where} is not named and there is no {language!r}; there are {list(row)}")


def tables(
    table: datasets.Dataset, corpus: CorpusConfig, data: DataConfig, key: str
) -> Iterator[pa.Table]:
    """The table's columns as batches of (`source`, `references`); null is an empty sentence.

    Raises:
        UserError: a column is missing or holds no strings.
    """
    schema = table.features.arrow_schema
    shape = {
        field.name: {inner.name: None for inner in field.type}
        if pa.types.is_struct(field.type)
        else None
        for field in schema
    }
    source = corpus.source or usual_key(shape, data.source_language, "source", f"{key}.source")
    targets = names_of(corpus.target)
    if targets in ((), ("",)):
        targets = (usual_key(shape, data.target_language, "target", f"{key}.target"),)
    keys = [(f"{key}.source", source), *((f"{key}.target", name) for name in targets)]
    paths = [_path(table, side, name) for side, name in keys]
    kept = table.select_columns(sorted({path[0] for path in paths})).with_format("arrow")
    first = 0
    for batch in kept.iter(batch_size=_ROWS):
        columns = [
            _column(batch, path, name, side) for path, (side, name) in zip(paths, keys, strict=True)
        ]
        if pa.types.is_list(columns[0].type):
            raise UserError(f"{key}.source={source} holds lists; a source is one string")
        lists = [pa.types.is_list(column.type) for column in columns[1:]]
        if any(lists) and len(lists) > 1:
            raise UserError(f"{key}.target: name either one column of lists or several columns")
        texts = [column.to_pylist() for column in columns[1:]]
        rows = texts[0] if any(lists) else zip(*texts, strict=True)
        references = [[text or "" for text in row or ()] for row in rows]
        if empty := next((row for row, found in enumerate(references, 1) if not found), 0):
            raise UserError(f"{key}.target: row {first + empty} has no reference")
        first += len(batch)
        yield pa.table(
            {"source": columns[0], "references": pa.array(references, pa.list_(pa.string()))}
        )


def _path(table: datasets.Dataset, key: str, name: str) -> list[str]:
    if name in table.column_names:
        return [name]
    path = name.split(".")
    if path[0] not in table.column_names:
        raise UserError(f"{key}: no column {name!r}; there are {', '.join(table.column_names)}")
    return path


def _column(batch: pa.Table, path: list[str], name: str, key: str) -> pa.Array:
    column = batch[path[0]].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks)
    for part in path[1:]:
        if not pa.types.is_struct(column.type) or column.type.get_field_index(part) < 0:
            raise UserError(f"{key}: {name!r} is not there: no {part!r} in {column.type}")
        column = pc.struct_field(column, part)
    kind = column.type
    if pa.types.is_null(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return pc.fill_null(column.cast(pa.string()), "")
    if (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and (
        pa.types.is_string(kind.value_type) or pa.types.is_large_string(kind.value_type)
    ):
        return column.cast(pa.list_(pa.string()))
    raise UserError(f"{key}: column {name!r} holds {kind}, not strings")
