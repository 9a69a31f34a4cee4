"""How often each word occurs in the training targets: counted once for all runs on a text."""

import json
import logging
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from nmt_ls.config_languages import bleu_tokenizer
from nmt_ls.data import corpora
from nmt_ls.data.cache import cache_root, cached_folder, hash_of
from nmt_ls.data.evaluation_sets import CORPUS_SEED
from nmt_ls.errors import UserError
from nmt_ls.evaluation.breakdown import word_counts
from nmt_ls.evaluation.tokenizers import DEFAULT
from nmt_ls.training.runs import LoadedRun

log = logging.getLogger("nmt_ls")

FORMAT = 1
"""Counts changes of how words are counted; part of the cache's name."""

_ROWS = 10_000


def training_word_counts(run: LoadedRun) -> Counter[str] | None:
    """`count_training_words`, where that is wanted and can be had.

    Returns:
      None where `evaluation.word_frequency` says so, and (with a line on stderr) where the text is
      not at hand: a run can be evaluated far from where it was trained.
    """
    if not run.config.evaluation.word_frequency or run.config.data.train.kind == "none":
        return None
    try:
        return count_training_words(run)
    except UserError as error:
        log.info("no quality by word frequency: %s", str(error).splitlines()[0])
        return None


def count_training_words(run: LoadedRun) -> Counter[str]:
    """How often each token that BLEU counts occurs on the target side of a run's training text.

    The text as it stands, before filters and with `data.noise`; segmentation marks of pretokenized
    text are undone. Kept in the cache.

    Raises:
      UserError: the text is gone (`corpora.load_pairs`).
    """
    data = run.config.data
    content = corpora.content_fingerprint(data.train, data, CORPUS_SEED, key="data.train")
    marks = [data.pretokenized, data.joiner if data.pretokenized else ""]
    tokenize = bleu_tokenizer(run.config)
    if tokenize != DEFAULT:
        marks.append(tokenize)

    def build(folder: Path) -> None:
        text = json.dumps(word_counts(_targets(run), tokenize), ensure_ascii=False)
        (folder / "words.json").write_text(text, encoding="utf-8")

    name = f"words-{hash_of([FORMAT, content, *marks])}"
    folder = cached_folder(cache_root(data) / name, build)
    return Counter(json.loads((folder / "words.json").read_text(encoding="utf-8")))


def _targets(run: LoadedRun) -> Iterator[str]:
    data = run.config.data
    pairs = corpora.load_pairs(data.train, data, seed=CORPUS_SEED, key="data.train")
    for rows in pairs.select_columns("references").iter(batch_size=_ROWS):
        for references in rows["references"]:
            yield run.subwords.undo(references[0])
