"""What a model says of given translations (teacher forcing): the numbers of training, ε-free."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from nmt_ls.config import ModelConfig
from nmt_ls.data.subwords import Subwords
from nmt_ls.decoding.rows import in_batches, pad_rows
from nmt_ls.losses import TokenStatistics
from nmt_ls.model import graph_of, model_of
from nmt_ls.parallel import DataParallel
from nmt_ls.training.objective import likelihood


class _Rows(NamedTuple):
    source: np.ndarray
    source_lengths: np.ndarray
    target: np.ndarray
    target_lengths: np.ndarray


@lru_cache(maxsize=16)
def _program(model: ModelConfig, sizes: tuple[int, int], bos: int):
    graph = graph_of(model, *sizes)

    def statistics(params, rows: Any) -> TokenStatistics:
        return likelihood(model_of(graph, params), rows, bos)

    return DataParallel().rows(statistics)


def score_tokens(
    model: ModelConfig,
    subwords: Subwords,
    params: dict[str, np.ndarray],
    source_ids: Sequence[Sequence[int] | np.ndarray],
    target_ids: Sequence[Sequence[int] | np.ndarray],
    *,
    batch_sentences: int = 64,
) -> list[TokenStatistics]:
    """Statistics of every target token, end-of-sentence included, in the order of the sentences.

    Args:
      source_ids, target_ids: with end-of-sentence, without bos; of any length.

    Returns:
      One TokenStatistics of arrays `[tokens]` per sentence.
    """
    sizes = (subwords.source_size, subwords.target_size)
    program = _program(model, sizes, subwords.bos)
    rows = DataParallel().whole_rows(batch_sentences)
    lengths = [(len(s), len(t)) for s, t in zip(source_ids, target_ids, strict=True)]
    results: list[TokenStatistics | None] = [None] * len(lengths)
    for chosen, (source_length, target_length) in in_batches(lengths, rows):
        source = pad_rows([source_ids[i] for i in chosen], rows, source_length, subwords.pad)
        target = pad_rows([target_ids[i] for i in chosen], rows, target_length, subwords.pad)
        found = program(params, _Rows(*source, *target))
        for row, i in enumerate(chosen):
            results[i] = TokenStatistics(*(x[row, : lengths[i][1]] for x in found))
    return results  # type: ignore[return-value]
