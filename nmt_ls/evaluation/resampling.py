"""Bootstrap resamples of a test set's sentences, drawn alike for everything that is measured on it.

Without scipy, whose import takes its time: this is loaded whenever a model is trained.
"""

import numpy as np
from jaxtyping import Float

SAMPLES = 1000
SEED = 12345
LEVEL = 0.95

# Counts of drawn sentences held at a time, so that a large test set does not fill the memory.
_BLOCK = 4_000_000


def generator(seed: int, purpose: int) -> np.random.Generator:
    """Random numbers of (seed, purpose): 0 draws sentences, 1 training seeds, 2 what
    a report shows."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, purpose])))


def resampled_sums(
    per_sentence: Float[np.ndarray, "N K"], samples: int = SAMPLES, seed: int = SEED
) -> Float[np.ndarray, "samples K"]:
    """Sums over resamples of a test set: N sentences drawn with replacement (Koehn 2004).

    Args:
      per_sentence: [N, K] what each sentence adds to K sums; N at least 1.
      samples: number of resamples.
      seed: of the draw; the same seed and N give the same draws, which pairs two systems.

    Returns:
      [samples, K] float64; row i of everything that was measured on N sentences is over the same
      drawn sentences.
    """
    sentences = len(per_sentence)
    random = generator(seed, purpose=0)
    block = max(1, _BLOCK // sentences)
    sums = []
    for start in range(0, samples, block):
        rows = min(block, samples - start)
        drawn = random.integers(sentences, size=(rows, sentences))
        drawn += np.arange(rows)[:, None] * sentences
        times = np.bincount(drawn.ravel(), minlength=rows * sentences)
        sums.append(times.reshape(rows, sentences).astype(np.float64) @ per_sentence)
    return np.concatenate(sums)


def percentiles(values: Float[np.ndarray, "samples"]) -> list[float]:
    """The central 95 % of resampled values, as [low, high]."""
    return np.quantile(values, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]).tolist()
