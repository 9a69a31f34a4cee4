"""Sentence pairs from wherever they lie, as one memory-mapped `datasets` table.

Aligned text files, TSV, JSONL, the built-in phrasebook, and (`hub.py`) whatever Hugging Face
`datasets` loads. Everything is read in a stream: no corpus is ever held in Python lists. The
order of the lines is kept, and so is every line.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa

from nmt_ls.config import CorpusConfig, DataConfig
from nmt_ls.data import files, hub
from nmt_ls.data.cache import (
    cache_root,
    cached_folder,
    hash_of,
    hash_of_file,
    hashed_below,
    read_table,
    write_table,
)
from nmt_ls.errors import UserError

log = logging.getLogger("nmt_ls")

FORMAT = 1
"""Counts changes of how text is read; part of every fingerprint."""

FEATURES = datasets.Features(
    {"source": datasets.Value("string"), "references": datasets.List(datasets.Value("string"))}
)

_LINES = 50_000


def load_pairs(
    corpus: CorpusConfig, data: DataConfig, *, seed: int, key: str = ""
) -> datasets.Dataset:
    """The corpus as a memory-mapped table with columns `source` (string) and `references` (list).

    Args:
        corpus: What to read; `data.train`, `data.validation`, one of `data.tests`, or another.
        data: The root of relative paths, languages, cache and noise.
        seed: Draws the phrasebook's sentences; other kinds do not depend on it.
        key: The corpus's place in the configuration, such as `data.tests.news`: names it in
            messages, and decides the split where the corpus names none. Only `data.train` gets
            `data.noise`. Where it is not given it is looked up.

    Returns:
        One row per pair, in the order of the files, empty lines included. Lines end at "\\n"
        alone; a "\\r" before it and a byte-order mark at the start of a file are dropped; other
        whitespace is kept.

    Raises:
        UserError: a file is missing, empty or not UTF-8, the sides differ in length, a column is
            not there, … (file and line are named).
    """
    key = key or _key_of(corpus, data)

    def build(folder: Path) -> None:
        rows = write_table(folder / "pairs.arrow", FEATURES, _tables(corpus, data, seed, key))
        if not rows:
            raise UserError(f"{key} holds no sentence pairs")

    fingerprint = content_fingerprint(corpus, data, seed, key=key)
    folder = cached_folder(cache_root(data) / f"pairs-{fingerprint}", build)
    return read_table(folder / "pairs.arrow")


def content_fingerprint(corpus: CorpusConfig, data: DataConfig, seed: int, *, key: str = "") -> str:
    """Digest of what `load_pairs` will return: file contents and the settings that choose columns.

    Raises:
        UserError: a file is missing or empty.
    """
    key = key or _key_of(corpus, data)
    if corpus.kind == "none":
        raise UserError(
            f"{key}.kind=none: an imported run has no text of its own; to train it further, name "
            "some in a copy of its config.yaml, with training.init_from=RUN"
        )
    languages = [data.source_language, data.target_language]
    settings: list[Any] = [FORMAT, corpus.kind, corpus.size]
    if corpus.kind == "text":
        settings += [hash_of_file(path) for path in files.text_files(corpus, data, key)]
    elif corpus.kind in ("tsv", "jsonl"):
        content = hash_of_file(files.one_file(corpus, data, key))
        settings += [content, corpus.source, corpus.target, languages]
    elif corpus.kind == "datasets":
        # Of files what is in them counts; datasets' own fingerprint changes as they are moved.
        found: Any = [hash_of_file(path) for path in hub.local_files(corpus, data)]
        if folder := hub.folder_of_files(corpus, data):
            found = [corpus.name, corpus.split or _split_of(key), *hashed_below(folder)]
        found = found or hub.load(corpus, data, key, _split_of(key))._fingerprint
        settings += [found, corpus.split, corpus.source, corpus.target, languages]
    elif corpus.kind == "sacrebleu":
        settings += [corpus.name, languages]
    else:
        from nmt_ls.data import phrasebook

        settings += hashed_below(Path(phrasebook.__file__).parent)
        settings += [corpus.grammar, corpus.split or _split_of(key), seed, _noise(data, key)]
    return hash_of(settings)


def _key_of(corpus: CorpusConfig, data: DataConfig) -> str:
    if corpus == data.train:
        return "data.train"
    if corpus == data.validation:
        return "data.validation"
    names = [name for name, test in data.tests.items() if test == corpus]
    return f"data.tests.{names[0]}" if names else "the corpus"


def _split_of(key: str) -> str:
    """The split that a corpus is of where it names none."""
    return {"data.train": "train", "data.validation": "validation"}.get(key, "test")


def _noise(data: DataConfig, key: str) -> float:
    return data.noise if key == "data.train" else 0.0


def _tables(corpus: CorpusConfig, data: DataConfig, seed: int, key: str) -> Iterator[pa.Table]:
    if corpus.kind == "datasets":
        table = hub.load(corpus, data, key, _split_of(key))
        yield from hub.tables(table, corpus, data, key)
        return
    rows: Iterable[tuple[str, Sequence[str]]]
    if corpus.kind == "text":
        rows = files.text_rows(files.text_files(corpus, data, key))
    elif corpus.kind == "tsv":
        rows = files.tsv_rows(files.one_file(corpus, data, key), corpus)
    elif corpus.kind == "jsonl":
        rows = files.jsonl_rows(files.one_file(corpus, data, key), corpus, data)
    elif corpus.kind == "sacrebleu":
        from nmt_ls.data.sacrebleu_sets import named_set  # imports sacrebleu

        log.info("reading sacreBLEU's test set %s (fetched the first time)", corpus.name)
        languages = (data.source_language, data.target_language)
        rows = zip(*named_set(corpus.name, languages), strict=True)
    else:
        rows = _phrasebook_rows(corpus, data, seed, key)
    rows = islice(rows, corpus.size or None)
    while batch := list(islice(rows, _LINES)):
        yield pa.table(
            {
                "source": pa.array([source for source, _ in batch], pa.string()),
                "references": pa.array([list(r) for _, r in batch], pa.list_(pa.string())),
            }
        )


def _phrasebook_rows(
    corpus: CorpusConfig, data: DataConfig, seed: int, key: str
) -> Iterator[tuple[str, list[str]]]:
    from nmt_ls.data.phrasebook import Phrasebook

    if not corpus.size:
        raise UserError(f"{key}.size=0: say how many pairs the phrasebook shall draw")
    split = corpus.split or _split_of(key)
    try:
        pairs = Phrasebook(corpus.grammar).pairs(
            split, corpus.size, seed=seed, noise=_noise(data, key)
        )
        for source, target in pairs:
            yield source, [target]
    except ValueError as error:
        raise UserError(f"{key}: {error}") from None
