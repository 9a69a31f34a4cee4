"""Subword regularisation from the phrasebook's text to batches."""

import dataclasses

import numpy as np
import pytest
from tiny import tiny_data

from nmt_ls.config import Config, CorpusConfig, DataConfig, SubwordsConfig
from nmt_ls.data.batches import Batches
from nmt_ls.data.resampling import resampler


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    config = Config(
        data=DataConfig(
            train=CorpusConfig(kind="phrasebook", grammar="small", split="train", size=300),
            max_length=64,
            cache_dir=str(tmp_path_factory.mktemp("cache")),
        ),
        subwords=SubwordsConfig(vocab_size=200, sampling_candidates=8, sampling_alpha=0.2),
    )
    return tiny_data(config)


def batches(data, seed, resample):
    return Batches(
        data.train,
        batch_tokens=400,
        shapes=2,
        seed=seed,
        pad=data.subwords.pad,
        resample=resampler(data) if resample else None,
    )


def rows(batch):
    return [
        ids[:n].tolist() for ids, n in zip(batch.target, batch.target_lengths, strict=True) if n
    ]


def test_segmentations_differ_and_mean_the_same(data):
    fixed, drawn = batches(data, 1, False).batch(3), batches(data, 1, True).batch(3)
    assert fixed.target.shape == drawn.target.shape
    different = [a != b for a, b in zip(rows(fixed), rows(drawn), strict=True)]
    assert 0.2 < np.mean(different) <= 1
    decode = data.subwords.decode
    assert decode(rows(fixed)) == decode(rows(drawn))
    assert all(row[-1] == data.subwords.eos for row in rows(drawn))


def test_a_step_draws_the_same_again_and_another_step_others(data):
    one, two = batches(data, 1, True), batches(data, 1, True)
    two.batch(7)  # what was drawn before does not matter
    assert rows(one.batch(3)) == rows(two.batch(3))
    other = dataclasses.replace(data, subwords=data.subwords.with_sampling(1, 0.2))
    assert rows(batches(other, 1, True).batch(3)) == rows(batches(data, 1, False).batch(3))
