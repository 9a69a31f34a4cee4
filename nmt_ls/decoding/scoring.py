"""What a model says of given translations (teacher forcing): the numbers of training, ε-free."""

import logging
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from nmt_ls.config import ModelConfig
from nmt_ls.data.subwords import Subwords
from nmt_ls.decoding.distributions import unmixed, with_temperature
from nmt_ls.decoding.rows import in_batches, pad_rows
from nmt_ls.losses import TokenStatistics, linear_loss, token_statistics
from nmt_ls.model import graph_of, model_of
from nmt_ls.parallel import DataParallel
from nmt_ls.training.objective import likelihood, teacher_forced

log = logging.getLogger("nmt_ls")

_LONG = 512
"""Pairs of longer sides, padded, are scored fewer at a time."""


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


class Adjustment(NamedTuple):
    """What is done to a distribution before its likelihood is taken; data, not code."""

    temperature: Any = 1.0
    delta: Any = 0.0
    """δ: the share of the mixture that is the prior's."""


def _adjusted(log_q, prior, adjustment: Adjustment):
    clean = unmixed(log_q, adjustment.delta * prior, purpose="likelihood")
    return with_temperature(clean, adjustment.temperature)


@lru_cache(maxsize=16)
def _adjusted_program(model: ModelConfig, sizes: tuple[int, int], bos: int, several: bool):
    """Statistics under one adjustment; or Σ nll of each row under each of several."""
    graph = graph_of(model, *sizes)

    def call(data, rows: Any):
        params, prior, adjustment = data
        transformer = model_of(graph, params)
        hidden, where = teacher_forced(transformer, rows, bos)
        matrix, bias = transformer.output_matrix()

        def one(log_q, labels, where, adjustment):
            return token_statistics(_adjusted(log_q, prior, adjustment), labels, where)

        def statistics(logits, labels, where):
            log_q = jax.nn.log_softmax(logits)
            if not several:
                return one(log_q, labels, where, adjustment)
            nll = jax.lax.map(lambda a: one(log_q, labels, where, a).nll, adjustment)  # [K, C]
            return nll.T

        found = linear_loss(
            statistics, hidden, matrix, rows.target,
            bias=bias, where=where, logit_softcap=model.logit_softcap or None,
        )  # fmt: skip
        return jnp.sum(found, axis=1) if several else found

    return DataParallel().rows(call)


def total_nll(
    model: ModelConfig,
    subwords: Subwords,
    params: dict[str, np.ndarray],
    source_ids: Sequence[Sequence[int] | np.ndarray],
    target_ids: Sequence[Sequence[int] | np.ndarray],
    prior: Float[np.ndarray, "V"],
    adjustments: Adjustment,
    *,
    batch_sentences: int = 64,
) -> Float[np.ndarray, "K"]:
    """Σ nll of all tokens under each of K adjustments (arrays `[K]`), in one pass of the model."""
    program = _adjusted_program(model, _sizes(subwords), subwords.bos, True)
    data = (params, np.asarray(prior, np.float32), _as_arrays(adjustments))
    total = np.zeros(len(np.atleast_1d(adjustments.delta)))
    for rows, chosen, _ in batched_pairs(subwords, source_ids, target_ids, batch_sentences):
        total += program(data, rows)[: len(chosen)].sum(axis=0, dtype=np.float64)
    return total


def _as_arrays(adjustment: Adjustment) -> Adjustment:
    return Adjustment(*(np.asarray(x, np.float32) for x in adjustment))


def _sizes(subwords: Subwords) -> tuple[int, int]:
    return subwords.source_size, subwords.target_size


def score_tokens(
    model: ModelConfig,
    subwords: Subwords,
    params: dict[str, np.ndarray],
    source_ids: Sequence[Sequence[int] | np.ndarray],
    target_ids: Sequence[Sequence[int] | np.ndarray],
    *,
    adjusted: tuple[Float[np.ndarray, "V"], Adjustment] | None = None,
    batch_sentences: int = 64,
) -> list[TokenStatistics]:
    """Statistics of every target token, end-of-sentence included, in the order of the sentences.

    Args:
      source_ids, target_ids: with end-of-sentence, without bos; of any length.
      adjusted: (prior, adjustment): of the distribution un-mixed from the prior, then tempered.

    Returns:
      One TokenStatistics of arrays `[tokens]` per sentence. With `positions=learned`, tokens beyond
      `max_positions` have the last position; a warning says of how many pairs.
    """
    if model.positions == "learned":
        pairs = zip(source_ids, target_ids, strict=True)
        beyond = sum(max(len(s), len(t)) > model.max_positions for s, t in pairs)
        if beyond:
            log.warning(
                "%d of %d pairs have more than model.max_positions=%d tokens: those beyond count "
                "as being at the last position",
                beyond, len(source_ids), model.max_positions,
            )  # fmt: skip
    data: Any = params
    if adjusted is None:
        program = _program(model, _sizes(subwords), subwords.bos)
    else:
        program = _adjusted_program(model, _sizes(subwords), subwords.bos, False)
        prior, adjustment = adjusted
        data = (params, np.asarray(prior, np.float32), _as_arrays(adjustment))
    return each_pair(program, data, subwords, source_ids, target_ids, batch_sentences)


@lru_cache(maxsize=16)
def _hidden_program(model: ModelConfig, sizes: tuple[int, int], bos: int):
    graph = graph_of(model, *sizes)

    def hidden(params, rows: Any):
        return teacher_forced(model_of(graph, params), rows, bos)[0].astype(jnp.float32)

    return DataParallel().rows(hidden)


def hidden_states(
    model: ModelConfig,
    subwords: Subwords,
    params: dict[str, np.ndarray],
    source_ids: Sequence[Sequence[int] | np.ndarray],
    target_ids: Sequence[Sequence[int] | np.ndarray],
    *,
    batch_sentences: int = 64,
) -> list[Float[np.ndarray, "T D"]]:
    """What the output matrix turns into the logits of each target token, as `score_tokens` has it.

    Args:
      source_ids, target_ids: with end-of-sentence, without bos; of any length.

    Returns:
      `[tokens, width]` float32 per sentence, in the order of the sentences; row t is the state
      from which token t is predicted, given the true tokens before it.
    """
    program = _hidden_program(model, _sizes(subwords), subwords.bos)
    return each_pair(program, params, subwords, source_ids, target_ids, batch_sentences)


def each_pair(
    program: Callable[[Any, Any], Any],
    data: Any,
    subwords: Subwords,
    source_ids: Sequence[Sequence[int] | np.ndarray],
    target_ids: Sequence[Sequence[int] | np.ndarray],
    batch_sentences: int,
) -> list[Any]:
    """`program(data, rows)` of each pair, in their order: arrays `[target tokens, …]`."""
    results: list[Any] = [None] * len(source_ids)
    for rows, chosen, lengths in batched_pairs(subwords, source_ids, target_ids, batch_sentences):
        found = program(data, rows)
        for row, (i, length) in enumerate(zip(chosen, lengths, strict=True)):
            # Copies: a view would keep the whole batch.
            results[i] = jax.tree.map(lambda x, r=row, n=length: x[r, :n].copy(), found)
    return results


def batched_pairs(
    subwords, source_ids, target_ids, batch_sentences
) -> Iterator[tuple[_Rows, list[int], list[int]]]:
    """(padded rows, which sentences they are, their target lengths) of each batch."""
    parallel = DataParallel()

    def count(shape: tuple[int, ...]) -> int:
        # Attention is a table of length by length: of long pairs fewer, that memory stays the same.
        fewer = batch_sentences * _LONG**2 // max(_LONG, *shape) ** 2
        return parallel.whole_rows(max(1, fewer))

    lengths = [(len(s), len(t)) for s, t in zip(source_ids, target_ids, strict=True)]
    for chosen, shape in in_batches(lengths, count):
        sides = [
            pad_rows([ids[i] for i in chosen], count(shape), length, subwords.pad)
            for ids, length in zip((source_ids, target_ids), shape, strict=True)
        ]
        yield _Rows(*sides[0], *sides[1]), chosen, [lengths[i][1] for i in chosen]
