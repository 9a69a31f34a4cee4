"""A batch to time a training step with: random ids in rows of many lengths."""

import numpy as np

from nmt_ls.data.batches import Batch

PAD = 0


def random_batch(seed: int, rows: int, vocab_size: int, *, length: int = 32) -> Batch:
    """So many pairs of `length / 2` to `length` tokens each, ids from 4 to `vocab_size`."""
    generator = np.random.default_rng(seed)
    sides = []
    for _ in range(2):
        lengths = generator.integers(length // 2, length + 1, rows).astype(np.int32)
        ids = generator.integers(4, vocab_size, (rows, length)).astype(np.int32)
        sides += [np.where(np.arange(length) < lengths[:, None], ids, PAD), lengths]
    return Batch(*sides)
