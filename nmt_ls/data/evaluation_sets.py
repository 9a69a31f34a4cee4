"""Validation and test sets: every line of them, encoded."""

import dataclasses
import json
from collections.abc import Sequence
from itertools import chain

import datasets
import numpy as np

from nmt_ls.config import Config, CorpusConfig, DataConfig
from nmt_ls.data import corpora
from nmt_ls.data.cache import hash_of
from nmt_ls.data.subwords import Subwords

CORPUS_SEED = 1
"""Draws the phrasebook's sentences. Not `config.seed`: runs that differ in their seed train and
are tested on the same text, so that they can be compared sentence by sentence."""


@dataclasses.dataclass
class EvaluationSet:
    """A validation or test set: every line of it, in order."""

    name: str
    sources: list[str]
    """Source sentences as they stand in the file."""
    references: list[list[str]]
    """The references of each source; segmentation marks of pretokenized text undone."""
    source_ids: list[np.ndarray]
    """int32 [tokens] of each source, `eos` at the end."""
    target_ids: list[np.ndarray]
    """int32 [tokens] of each first reference, `eos` at the end."""
    unk_share: float
    """Share of `<unk>` among the tokens of both sides, `eos` not counted."""
    fingerprint: str
    """Digest of text and subwords."""

    def of(self, lines: Sequence[int]) -> "EvaluationSet":
        """The same set with these of its lines alone, in their order."""
        return dataclasses.replace(
            self,
            sources=[self.sources[i] for i in lines],
            references=[self.references[i] for i in lines],
            source_ids=[self.source_ids[i] for i in lines],
            target_ids=[self.target_ids[i] for i in lines],
        )


def load_evaluation_set(
    name: str,
    corpus: CorpusConfig,
    config: Config | DataConfig,
    subwords: Subwords,
    seed: int = CORPUS_SEED,
) -> EvaluationSet:
    """Every line of a validation or test set, empty ones too, encoded.

    Args:
        name: What the set is called.
        corpus: Where it lies.
        config: The data settings, or the configuration that has them.
        subwords: Encodes both sides.
        seed: Draws the phrasebook's sentences.

    Raises:
        UserError: see `corpora.load_pairs`.
    """
    data = config.data if isinstance(config, Config) else config
    key = _key_of(name, corpus, data)
    pairs = corpora.load_pairs(corpus, data, seed=seed, key=key)
    content = corpora.content_fingerprint(corpus, data, seed, key=key)
    return encoded_set(name, pairs, data, subwords, content)


def fingerprint_now(name: str, corpus: CorpusConfig, data: DataConfig, subwords: Subwords) -> str:
    """The `fingerprint` that `load_evaluation_set` would give, without reading or encoding pairs.

    Files are read anew each time; what `datasets` loads is asked for once in a process, as the hub
    may be asked whether it has changed.

    Raises:
        UserError: see `corpora.content_fingerprint`.
    """
    key = _key_of(name, corpus, data)
    if corpus.kind != "datasets":
        content = corpora.content_fingerprint(corpus, data, CORPUS_SEED, key=key)
        return _fingerprint(content, subwords)
    asked = json.dumps([key, dataclasses.asdict(corpus), dataclasses.asdict(data)], sort_keys=True)
    if asked not in _LOADED:
        _LOADED[asked] = corpora.content_fingerprint(corpus, data, CORPUS_SEED, key=key)
    return _fingerprint(_LOADED[asked], subwords)


_LOADED: dict[str, str] = {}
"""By settings, the digests of what `datasets` loaded."""


def _key_of(name: str, corpus: CorpusConfig, data: DataConfig) -> str:
    """The set's place in the configuration; empty where it has none under this name."""
    key = f"data.tests.{name}" if data.tests.get(name) == corpus else ""
    if corpus == data.validation and (name == "validation" or not key):
        return "data.validation"
    return key


def _fingerprint(content: str, subwords: Subwords) -> str:
    return hash_of([content, subwords.fingerprint])


def encoded_set(
    name: str, pairs: datasets.Dataset, data: DataConfig, subwords: Subwords, content: str
) -> EvaluationSet:
    """Sentence pairs, as `corpora.load_pairs` returns them, encoded; `content` is their digest."""
    sources = list(pairs["source"])
    references = [list(row) for row in pairs["references"]]
    source_ids = subwords.encode_source(sources, threads=data.num_proc)
    target_ids = subwords.encode_target([row[0] for row in references], threads=data.num_proc)
    unknown = sum(ids.count(subwords.unk) for ids in chain(source_ids, target_ids))
    tokens = sum(len(ids) - 1 for ids in chain(source_ids, target_ids))
    return EvaluationSet(
        name=name,
        sources=sources,
        references=[[subwords.undo(text) for text in row] for row in references],
        source_ids=[np.array(ids, np.int32) for ids in source_ids],
        target_ids=[np.array(ids, np.int32) for ids in target_ids],
        unk_share=unknown / max(tokens, 1),
        fingerprint=_fingerprint(content, subwords),
    )
