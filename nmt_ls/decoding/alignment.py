"""Which source tokens a translation comes from, as attention sees it."""

from collections.abc import Sequence
from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from nmt_ls.config import ModelConfig
from nmt_ls.data.subwords import Subwords
from nmt_ls.decoding.scoring import each_pair
from nmt_ls.model import graph_of, model_of
from nmt_ls.parallel import DataParallel
from nmt_ls.training.objective import shift_right


@lru_cache(maxsize=16)
def _program(model: ModelConfig, sizes: tuple[int, int], bos: int):
    graph = graph_of(model, *sizes)
    # The last layer but one: of six it agrees best with people (Garg et al. 2019).
    layer = max(0, model.decoder_layers - 2)

    def weights(params, rows):
        transformer = model_of(graph, params)
        found: list = []
        memory = transformer.encode(rows.source, rows.source_lengths)
        transformer.decode(memory, shift_right(rows.target, bos), watch=found.append)
        return jnp.mean(found[layer], axis=1)

    return DataParallel().rows(weights)


def attention_weights(
    model: ModelConfig,
    subwords: Subwords,
    params: dict[str, np.ndarray],
    source_ids: Sequence[Sequence[int] | np.ndarray],
    target_ids: Sequence[Sequence[int] | np.ndarray],
    *,
    batch_sentences: int = 64,
) -> list[Float[np.ndarray, "T S"]]:
    """Attention of given translations to their sources, the mean of a layer's heads.

    The layer is the last but one, where there is one (Garg et al. 2019, arXiv 1909.02074, §4.1);
    row t is what the decoder looks at as it predicts token t from the true ones before it.

    Args:
      source_ids, target_ids: with end-of-sentence, without bos; of any length.

    Returns:
      `[target tokens, source tokens]` of each sentence, rows summing to 1, end-of-sentence
      included in both.
    """
    program = _program(model, (subwords.source_size, subwords.target_size), subwords.bos)
    found = each_pair(program, params, subwords, source_ids, target_ids, batch_sentences)
    return [x[:, : len(ids)] for x, ids in zip(found, source_ids, strict=True)]


def hard_alignment(weights: Float[np.ndarray, "T S"]) -> list[int]:
    """Of each target token the source token with the largest weight, the first of equal ones."""
    return [int(s) for s in weights.argmax(axis=1)] if weights.size else []
