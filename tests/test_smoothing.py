"""Where ε goes and how much it is, of each step and token. (Golden: test_cross_entropy.py.)"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import assert_close

from nmt_ls.losses import (
    class_weighted,
    convention,
    graduated_smoothing,
    label_smoothed_cross_entropy,
    linear_label_smoothed_cross_entropy_sum,
    scheduled_smoothing,
)

GOLDEN = dict(np.load(Path(__file__).parent / "fixtures" / "loss_golden.npz"))


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
    with pytest.raises(ValueError, match="pad_id=5"):
        convention("joeynmt", 5, pad_id=5)
    with pytest.raises(ValueError, match="'theano'; known: pytorch, optax"):
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


def test_graduated_by_hand() -> None:
    probability = np.array([0.0, 0.29, 0.31, 0.69, 0.71, 1.0], np.float32)
    with np.errstate(divide="ignore"):
        nll = -np.log(probability)
    np.testing.assert_array_equal(
        graduated_smoothing(nll), np.array([0, 0, 0.1, 0.1, 0.3, 0.3], np.float32)
    )
    found = graduated_smoothing(nll, below=0.5, above=0.7, smoothing=(0.0, jnp.float32(0.2), 0.4))
    np.testing.assert_array_equal(found, np.array([0, 0, 0, 0.2, 0.4, 0.4], np.float32))
    with pytest.raises(ValueError, match="below=0.8"):
        graduated_smoothing(nll, below=0.8)


def test_graduated_smoothing_is_data_to_the_loss() -> None:
    logits = np.random.default_rng(0).normal(size=(5, 6)).astype(np.float32) * 3
    labels = np.array([0, 1, 2, 3, int(logits[4].argmax())])

    def own(x):
        nll = label_smoothed_cross_entropy(x, labels, 0.0)
        return jnp.sum(label_smoothed_cross_entropy(x, labels, graduated_smoothing(nll)))

    epsilon = graduated_smoothing(label_smoothed_cross_entropy(logits, labels, 0.0))
    assert len(set(np.asarray(epsilon).tolist())) > 1
    given = jax.grad(lambda x: jnp.sum(label_smoothed_cross_entropy(x, labels, epsilon)))(logits)
    np.testing.assert_allclose(jax.grad(own)(logits), given, atol=1e-7)


@pytest.mark.parametrize("epsilon", ["0.0", "0.1", "0.3"])
def test_class_weights_are_pytorchs(epsilon: str) -> None:
    """Its own numbers: the weighted mean, and its gradient."""
    logits, labels, mask = (GOLDEN[n] for n in ("logits", "labels", "mask"))
    name = f"pytorch_class_weights/eps{epsilon}"
    with jax.enable_x64(True):
        weights = jnp.asarray(GOLDEN["pytorch_class_weights/weights"])
        row, eps, prior, of_label = class_weighted(labels, weights, float(epsilon))

        def mean(x):
            loss = label_smoothed_cross_entropy(x, labels, eps, where=mask, prior=prior)
            return jnp.sum(row * loss) / jnp.sum(jnp.where(mask, of_label, 0))

        def fused(x):
            # Logits as hidden states times the identity.
            total = linear_label_smoothed_cross_entropy_sum(
                x, jnp.eye(x.shape[-1]), labels, eps,
                where=mask, prior=prior, weights=row, chunk_size=5,
            )  # fmt: skip
            return total / jnp.sum(jnp.where(mask, of_label, 0))

        for function in (mean, fused):
            value, gradient = jax.jit(jax.value_and_grad(function))(jnp.asarray(logits))
            assert_close(value, GOLDEN[f"{name}/loss_mean"], 1e-12)
            assert_close(gradient, GOLDEN[f"{name}/grad"], 1e-12)


def test_class_weights_at_the_edges() -> None:
    row, epsilon, _, of_label = class_weighted(
        np.array([0, 1, -100]), np.array([0.0, 2.0], np.float32), 0.0
    )
    np.testing.assert_array_equal(row, [0, 2, 0])
    np.testing.assert_array_equal(epsilon, [0, 0, 0])
    np.testing.assert_array_equal(of_label, [0, 2, 0])
    # 256 classes: 255 is the largest label of 8 bits, and 256 would be 0 there.
    narrow = class_weighted(np.array([0, 255], np.uint8), np.ones(256, np.float32), 0.1)
    np.testing.assert_array_equal(narrow.denominator_weights, [1, 1])
    for weights in ([-1.0, 1], [0.0, 0], [[1.0]], [np.inf, 1]):
        with pytest.raises(ValueError, match="weights must be"):
            class_weighted(np.array([0]), np.array(weights))
