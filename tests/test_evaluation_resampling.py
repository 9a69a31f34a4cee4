"""Resamples of sentences: written out, paired, and cheap to import."""

import subprocess
import sys

import numpy as np
import pytest

from nmt_ls.evaluation import resampling
from nmt_ls.evaluation.resampling import generator, percentiles, resampled_sums


def test_sums_are_those_of_the_drawn_sentences():
    counts = np.random.default_rng(0).integers(0, 9, size=(7, 3)).astype(float)
    drawn = generator(5, purpose=0).integers(7, size=(20, 7))
    expected = np.array([counts[row].sum(0) for row in drawn])
    np.testing.assert_array_equal(resampled_sums(counts, samples=20, seed=5), expected)


def test_blocks_do_not_change_the_sums(monkeypatch):
    counts = np.random.default_rng(1).normal(size=(7, 2))
    whole = resampled_sums(counts, samples=9)
    monkeypatch.setattr(resampling, "_BLOCK", 14)  # two resamples at a time
    np.testing.assert_allclose(resampled_sums(counts, samples=9), whole, rtol=1e-14)


def test_systems_are_paired_and_seeds_differ():
    a, b = np.arange(6.0)[:, None], 2 * np.arange(6.0)[:, None] + 1
    # The same sentences are drawn for both, so the sums are tied: b = 2·a + 6.
    np.testing.assert_allclose(resampled_sums(b, 50), 2 * resampled_sums(a, 50) + 6)
    assert not np.array_equal(resampled_sums(a, 50, seed=1), resampled_sums(a, 50, seed=2))


def test_spread_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(2).normal(size=(400, 1))
    means = resampled_sums(values, samples=4000)[:, 0] / 400
    assert means.std() == pytest.approx(values.std() / 20, rel=0.04)


def test_percentiles_by_hand():
    # Of 0 … 400 the central 95 % go from 10 to 390.
    assert percentiles(np.arange(401.0)) == pytest.approx([10.0, 390.0])


def test_training_does_not_load_scipy_for_it():
    code = "import sys, nmt_ls.evaluation.calibration as c; print('scipy' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
