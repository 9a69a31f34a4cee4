"""Who receives ε: priors by hand, and what they refuse."""

import numpy as np
import pytest

from nmt_ls.losses import masked_prior, uniform_prior, unigram_prior

COUNTS = np.array([0, 1, 4, 0, 16])


def test_uniform_by_hand() -> None:
    np.testing.assert_allclose(uniform_prior(4), [0.25] * 4)
    np.testing.assert_allclose(uniform_prior(5, exclude=[0, 3]), [0, 1 / 3, 1 / 3, 0, 1 / 3])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 1, 4, 0, 16]),
        ({"temperature": 2.0}, [0, 1, 2, 0, 4]),
        ({"temperature": 0.5}, [0, 1, 16, 0, 256]),
        ({"pseudo_count": 1.0}, [1, 2, 5, 1, 17]),
        ({"exclude": [4]}, [0, 1, 4, 0, 0]),
        ({"temperature": 1e9}, [0, 1, 1, 0, 1]),
        ({"temperature": 1e-6}, [0, 0, 0, 0, 1]),
    ],
)
def test_unigram_by_hand(options: dict, expected: list[float]) -> None:
    found = unigram_prior(COUNTS, **options)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, np.array(expected) / sum(expected), atol=1e-6)


def test_masked_by_hand() -> None:
    np.testing.assert_allclose(masked_prior(COUNTS), [0, 1 / 3, 1 / 3, 0, 1 / 3])
    np.testing.assert_allclose(masked_prior(COUNTS, exclude=[1]), [0, 0, 0.5, 0, 0.5])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: uniform_prior(3, exclude=[3]), "exclude=3"),
        (lambda: uniform_prior(2, exclude=[0, 1]), "no class"),
        (lambda: unigram_prior([1, -1]), "counts"),
        (lambda: unigram_prior([[1, 1]]), "counts"),
        (lambda: unigram_prior([1, 1], temperature=0), "temperature=0"),
        (lambda: unigram_prior([1, 1], pseudo_count=-1), "pseudo_count=-1"),
        (lambda: unigram_prior([0, 0]), "all 0"),
        (lambda: masked_prior([0, -2]), "target_counts"),
        (lambda: masked_prior([0, 0]), "no class"),
    ],
)
def test_what_cannot_be(call, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        call()
