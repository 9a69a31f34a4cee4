"""What a model makes of the text it was trained on: how much of its likelihood is memory.

The difference of the mean nll on new text and on training text is the generalisation gap, what
"overfitting" names. Dropout is off for both, and neither contains the smoothing.
"""

from typing import Any

import numpy as np

from nmt_ls.data import corpora
from nmt_ls.data.evaluation_sets import CORPUS_SEED, encoded_set
from nmt_ls.decoding.scoring import score_tokens
from nmt_ls.evaluation.likelihood import likelihood
from nmt_ls.training.runs import LoadedRun

_KEPT = (
    "nll_per_token",
    "perplexity",
    "tokens",
    "entropy",
    "ece",
    "mean_confidence",
    "accuracy",
)


def training_sample(run: LoadedRun) -> dict[str, Any] | None:
    """Likelihood of `evaluation.training_pairs` training pairs.

    The pairs lie at even distances from the first to the last, so that all runs of a study read
    the same ones. Of those, pairs that training leaves out as too long are left out here; they are
    scored as training saw them, `data.noise` included.

    Returns:
      `pairs`, how many were asked for, `sentences`, how many were read, and likelihood and
      calibration as of a test set; None where `evaluation.training_pairs` is 0.

    Raises:
      UserError: the text is gone (`corpora.load_pairs`).
    """
    config = run.config
    asked = config.evaluation.training_pairs
    if not asked:
        return None
    pairs = corpora.load_pairs(config.data.train, config.data, seed=CORPUS_SEED, key="data.train")
    places = np.unique(np.linspace(0, len(pairs) - 1, min(asked, len(pairs))).astype(int))
    data = encoded_set("training pairs", pairs.select(places), config.data, run.subwords, "")
    kept = [
        number
        for number, sides in enumerate(zip(data.source_ids, data.target_ids, strict=True))
        if max(map(len, sides)) <= config.data.max_length
    ]
    data = data.of(kept)
    statistics = score_tokens(
        config.model,
        run.subwords,
        run.params,
        data.source_ids,
        data.target_ids,
        batch_sentences=config.decoding.batch_sentences,
    )
    found = likelihood(statistics, data, run.subwords.unk)
    return {"pairs": asked, "sentences": len(kept), **{name: found[name] for name in _KEPT}}
