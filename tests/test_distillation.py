"""Word-level distillation: by hand, its gradient, what a teacher rules out, masked rows."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nmt_ls.losses import distillation, token_statistics

generator = np.random.default_rng(0)
STUDENT, TEACHER = generator.normal(size=(2, 6, 9)).astype(np.float32) * 2
LABELS = np.array([0, 8, 3, 3, 1, 2])


def softmax(x, temperature=1.0):
    x = np.asarray(x, np.float64) / temperature
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


@given(beta=st.floats(0, 1), temperature=st.floats(0.5, 4))
@settings(max_examples=20, deadline=None)
def test_by_definition(beta, temperature):
    p, q = softmax(STUDENT, temperature), softmax(TEACHER, temperature)
    nll = -np.log(softmax(STUDENT)[np.arange(6), LABELS])
    wanted = (1 - beta) * nll + beta * temperature**2 * np.sum(q * np.log(q / p), axis=-1)
    found = distillation(STUDENT, LABELS, TEACHER, beta, temperature=temperature)
    np.testing.assert_allclose(found, wanted, rtol=2e-5, atol=1e-6)


def test_gradient_is_the_difference_of_the_distributions():
    def total(student, teacher):
        return jnp.sum(distillation(student, LABELS, teacher, 1.0))

    student, teacher = jax.grad(total, argnums=(0, 1))(STUDENT, TEACHER)
    np.testing.assert_allclose(student, softmax(STUDENT) - softmax(TEACHER), atol=1e-6)
    assert not np.any(teacher)


def test_nothing_of_the_teacher_is_plain_cross_entropy():
    found = distillation(STUDENT, LABELS, TEACHER, 0.0)
    np.testing.assert_allclose(found, token_statistics(STUDENT, LABELS).nll, rtol=1e-6)


def test_what_both_rule_out_costs_nothing_and_masked_rows_may_hold_anything():
    student, teacher = STUDENT.copy(), TEACHER.copy()
    student[:, 5] = teacher[:, 5] = -np.inf
    teacher[1], student[1] = np.nan, np.inf
    where = np.arange(6) != 1
    loss, gradient = jax.value_and_grad(
        lambda x: jnp.sum(distillation(x, LABELS, teacher, 0.7, where=where))
    )(student)
    assert np.isfinite(loss)
    assert np.all(np.isfinite(gradient)) and not np.any(gradient[1])
    alone = distillation(student[where], LABELS[where], teacher[where], 0.7)
    assert float(loss) == pytest.approx(float(np.sum(alone)), rel=1e-6)


@pytest.mark.parametrize(("label", "beta", "wanted"), [(0, 0.0, np.log(2)), (1, 1.0, 0.0)])
def test_a_weight_of_0_leaves_out_what_is_infinite(label, beta, wanted):
    """A class that the student alone rules out, or the label among such."""
    student = np.array([0.0, -np.inf, 0.0], np.float32)
    teacher = np.zeros(3, np.float32) if beta == 0 else student
    loss, gradient = jax.value_and_grad(distillation)(student, label, teacher, beta)
    assert float(loss) == pytest.approx(wanted)
    assert np.all(np.isfinite(gradient))


def test_a_label_outside_is_nan():
    assert np.isnan(distillation(STUDENT, np.full(6, 9), TEACHER, 0.5)).all()
