"""Where ε goes, and how it changes over training. (Golden numbers: test_cross_entropy.py.)"""

import numpy as np
import pytest

from nmt_ls.losses import convention, label_smoothed_cross_entropy, scheduled_smoothing


def target_distribution(name: str, vocab: int, label: int, epsilon: float, pad: int) -> np.ndarray:
    """q, read off the loss: with logits that are 0 but for −M at class c, L = log Z + M·q_c."""
    options = {**convention(name, vocab, pad), "subtract_entropy": False}
    m = 4.0
    logits = -m * np.eye(vocab, dtype=np.float32)
    loss = label_smoothed_cross_entropy(logits, np.full(vocab, label), epsilon, **options)
    return (np.asarray(loss, np.float64) - np.log(vocab - 1 + np.exp(-m))) / m


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("pytorch", [0.06, 0.06, 0.76, 0.06, 0.06]),
        ("optax", [0.06, 0.06, 0.76, 0.06, 0.06]),
        ("huggingface", [0.06, 0.06, 0.76, 0.06, 0.06]),
        ("marian", [0.06, 0.06, 0.76, 0.06, 0.06]),
        ("fairseq", [0.075, 0.075, 0.7, 0.075, 0.075]),
        ("t5x", [0.075, 0.075, 0.7, 0.075, 0.075]),
        ("flax_wmt", [0.075, 0.075, 0.7, 0.075, 0.075]),
        ("joeynmt", [0.1, 0.0, 0.7, 0.1, 0.1]),
    ],
)
def test_who_receives_epsilon(name: str, expected: list[float]) -> None:
    found = target_distribution(name, 5, label=2, epsilon=0.3, pad=1)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_conventions_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="pad_id"):
        convention("joeynmt", 5)
    with pytest.raises(ValueError, match="'theano'"):
        convention("theano", 5)


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [0.2, 0.2, 0.2, 0.2, 0.2]),
        ("linear", [0.2, 0.15, 0.1, 0.05, 0.0]),
        ("cosine", [0.2, 0.1 * (1 + 2**-0.5), 0.1, 0.1 * (1 - 2**-0.5), 0.0]),
    ],
)
def test_schedules_by_hand(schedule: str, expected: list[float]) -> None:
    found = [scheduled_smoothing(k, 5, 0.2, 0.0, schedule) for k in range(5)]
    np.testing.assert_allclose(found, expected, atol=1e-15)
    if schedule != "constant":
        assert scheduled_smoothing(9, 5, 0.2, 0.05, schedule) == pytest.approx(0.05)
        assert scheduled_smoothing(0, 1, 0.2, 0.05, schedule) == pytest.approx(0.2)


def test_an_unknown_schedule() -> None:
    with pytest.raises(ValueError, match="'step'"):
        scheduled_smoothing(0, 5, 0.1, 0.0, "step")
