"""What a step minimises, for each kind of loss that a configuration can ask for."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import (
    MODEL,
    TRAINING,
    assert_close,
    random_batch,
    random_params,
    tiny_config,
    tiny_data,
    with_loss,
)

from nmt_ls.config import LossConfig
from nmt_ls.config_checks import check_together
from nmt_ls.losses import (
    class_weighted,
    distillation,
    generalized_entropy,
    graduated_smoothing,
    label_smoothed_cross_entropy,
    masked_prior,
    token_statistics,
    unigram_prior,
)
from nmt_ls.model import DropoutRates, graph_of, model_of
from nmt_ls.parallel import DataParallel
from nmt_ls.training.objective import loss_data, shift_right
from nmt_ls.training.runs import load_run
from nmt_ls.training.step import make_step, state_from
from nmt_ls.training.trainer import fit

SIZES, BOS, PAD = (44, 44), 2, 0
BATCH = random_batch(99, 10, source=6, target=7, empty=2)
WHERE = np.arange(7) < BATCH.target_lengths[:, None]
COUNTS = np.bincount(BATCH.target[WHERE], minlength=44)
PLAIN = dataclasses.replace(MODEL, dropout=0.0)
CAPPED = dataclasses.replace(PLAIN, logit_softcap=2.0)


def sums_of(loss: LossConfig, model=PLAIN, epsilon=0.2, teacher=None):
    """What one step measures, and the parameters after it."""
    parallel = DataParallel(1)
    step = parallel.step(
        make_step(model, loss, TRAINING, SIZES, BOS, PAD, PLAIN if teacher else None)
    )
    params = jax.tree.map(jnp.asarray, random_params(model, *SIZES))
    state = parallel.replicate(state_from(params, TRAINING))
    data = loss_data(loss, lambda: COUNTS, PAD)._replace(teacher=teacher)
    rates = DropoutRates(*(np.float32(0) for _ in range(3)))
    rows = parallel.split_rows(BATCH)
    _, sums = step(state, rows, np.uint32(1), np.float32(epsilon), rates, data)
    return sums


def logits_of(model=PLAIN, seed: int = 0):
    params = random_params(model, *SIZES, seed)

    @jax.jit
    def call(params):
        transformer = model_of(graph_of(model, *SIZES), params)
        memory = transformer.encode(BATCH.source, BATCH.source_lengths)
        return transformer.logits(transformer.decode(memory, shift_right(BATCH.target, BOS)))

    return call(params)


smoothed = partial(label_smoothed_cross_entropy, where=WHERE)


@pytest.mark.parametrize(
    ("settings", "options"),
    [
        ({"prior": "unigram"}, {"prior": unigram_prior(COUNTS)}),
        (
            {"prior": "unigram", "prior_temperature": 2.0, "convention": "fairseq"},
            {"prior": unigram_prior(COUNTS, temperature=2), "exclude_target": True},
        ),
        ({"prior": "masked"}, {"prior": masked_prior(COUNTS)}),
    ],
)
def test_priors(settings: dict, options: dict) -> None:
    sums = sums_of(LossConfig(**settings))
    assert_close(sums.loss, jnp.sum(smoothed(logits_of(), BATCH.target, 0.2, **options)), 1e-6)


def test_logit_softcap_is_the_models() -> None:
    uncapped, capped = logits_of(), logits_of(CAPPED)
    assert_close(capped, 2 * np.tanh(uncapped / 2), 1e-6)
    sums = sums_of(LossConfig(), CAPPED)
    assert_close(sums.loss, jnp.sum(smoothed(capped, BATCH.target, 0.2)), 1e-6)
    assert_close(sums.nll, jnp.sum(token_statistics(capped, BATCH.target, WHERE).nll), 1e-6)


def test_class_weights_average_to_one() -> None:
    loss = LossConfig(class_weight_power=0.5)
    weights = loss_data(loss, lambda: COUNTS, PAD).class_weights
    assert_close(weights @ COUNTS / COUNTS.sum(), 1.0, 1e-6)
    assert weights[COUNTS == 0].min() > weights[COUNTS > 1].max()
    row, epsilon, prior, _ = class_weighted(BATCH.target, weights, 0.2)
    expected = jnp.sum(row * smoothed(logits_of(), BATCH.target, epsilon, prior=prior))
    assert_close(sums_of(loss).loss, expected, 1e-6)


@pytest.mark.parametrize(
    ("settings", "alpha"),
    [
        ({"kind": "confidence_penalty"}, 0.0),
        ({"kind": "generalized_entropy", "alpha": 0.3}, 0.3),
    ],
)
def test_entropy_regularisation(settings: dict, alpha: float) -> None:
    sums = sums_of(LossConfig(**settings), epsilon=0.7)
    logits = logits_of()
    expected = generalized_entropy(logits, BATCH.target, 0.7, alpha, where=WHERE)
    assert_close(sums.loss, jnp.sum(expected), 1e-6)
    assert_close(sums.nll, jnp.sum(token_statistics(logits, BATCH.target, WHERE).nll), 1e-6)


def test_distillation() -> None:
    loss = LossConfig(kind="distillation", teacher_run="there", teacher_temperature=2.0)
    teacher = random_params(PLAIN, *SIZES, 7)
    expected = distillation(
        logits_of(), BATCH.target, logits_of(seed=7), 0.6, temperature=2.0, where=WHERE
    )
    sums = sums_of(loss, epsilon=0.6, teacher=teacher)
    assert_close(sums.loss, jnp.sum(expected), 1e-6)
    assert_close(sums.nll, jnp.sum(token_statistics(logits_of(), BATCH.target, WHERE).nll), 1e-6)


@pytest.mark.parametrize("graduated", ["self", "run"])
def test_graduated(graduated: str) -> None:
    loss = LossConfig(
        graduated=graduated,
        graduated_run="there" if graduated == "run" else "",
        graduated_below=0.01,
        graduated_above=0.03,
        graduated_smoothing=0.5,
    )
    seed = 0 if graduated == "self" else 7
    teacher = random_params(PLAIN, *SIZES, seed) if graduated == "run" else None
    nll = token_statistics(logits_of(seed=seed), BATCH.target, WHERE).nll
    epsilon = graduated_smoothing(nll, below=0.01, above=0.03, smoothing=(0.0, 0.2, 0.5))
    assert {0.0, 0.2, 0.5} <= set(np.asarray(epsilon, np.float64)[WHERE].round(3).tolist())
    expected = jnp.sum(smoothed(logits_of(), BATCH.target, epsilon))
    assert_close(sums_of(loss, teacher=teacher).loss, expected, 1e-6)


def test_a_run_graduated_by_another(tmp_path) -> None:
    """Through the trainer: counts of the text, the other run's parameters, the record of ε."""
    config = tiny_config(tmp_path / "text", max_steps=3, checkpoint_every=3)
    data = tiny_data(config)
    fit(config, data, tmp_path / "first")
    teacher = load_run(tmp_path / "first")
    second = with_loss(
        config, graduated="run", graduated_run=str(tmp_path / "first"), prior="unigram"
    )
    assert fit(second, data, tmp_path / "second", teacher=teacher) == 3
    assert '"label_smoothing": 0.1' in (tmp_path / "second" / "metrics.jsonl").read_text()
    third = with_loss(config, kind="confidence_penalty", beta=0.3)
    assert fit(third, data, tmp_path / "third") == 3
    assert '"beta": 0.3' in (tmp_path / "third" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"graduated": "run"}, "loss.graduated=run with loss.graduated_run=''"),
        ({"graduated_run": "x"}, "loss.graduated=none with loss.graduated_run='x'"),
        ({"graduated_below": 0.8}, "loss.graduated_below=0.8"),
        ({"class_weight_power": 1.0, "prior": "unigram"}, "loss.class_weight_power=1"),
        ({"class_weight_power": 1.0, "convention": "fairseq"}, "loss.class_weight_power=1"),
        ({"kind": "confidence_penalty", "z_loss": 0.1}, "loss.z_loss=0.1 belongs to"),
        ({"kind": "distillation"}, "loss.kind=distillation with loss.teacher_run=''"),
        ({"kind": "distillation", "teacher_run": "x", "beta": 1.5}, "loss.beta=1.5"),
        ({"kind": "generalized_entropy", "graduated": "self"}, "loss.graduated=self belongs to"),
    ],
)
def test_settings_that_do_not_go_together(tmp_path, settings: dict, words: str) -> None:
    lines = check_together(with_loss(tiny_config(tmp_path), **settings))
    assert any(words in line for line in lines), lines
