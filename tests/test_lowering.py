"""Programs are made for accelerators that are not here, as far as can be without them.

jax's own rules for each platform are applied, cuDNN's among them, whose presence and whose card are
made up; what comes out is not compiled.
"""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec
from tiny import TRAINING

from nmt_ls.bench.scale.ahead import pretended
from nmt_ls.config import LossConfig, ModelConfig
from nmt_ls.data.batches import Batch
from nmt_ls.decoding import scoring, search
from nmt_ls.decoding.beam import LengthPenalty
from nmt_ls.decoding.distributions import Cut
from nmt_ls.model import DropoutRates, initial_params
from nmt_ls.parallel import AXIS, DataParallel
from nmt_ls.training.objective import LossData
from nmt_ls.training.optimizer import Hyperparameters
from nmt_ls.training.population_step import MemberNumbers, Shared, make_population_step
from nmt_ls.training.step import initial_state, make_step

MODEL = ModelConfig(
    encoder_layers=1, decoder_layers=1, width=32, heads=2, feed_forward=64, compute="bfloat16"
)
SIZES, BOS, EOS, PAD = (50, 50), 2, 3, 0
PLATFORMS = ("cuda", "tpu")
FLASH, ITS_GRADIENT = "__cudnn$fmhaSoftmax(", "__cudnn$fmhaSoftmaxBackward("


@pytest.fixture(params=PLATFORMS)
def platform(request, monkeypatch) -> Iterator[str]:
    """What jax and we are told to be on."""
    # Programs over rows as they are before they are laid out over devices.
    monkeypatch.setattr(DataParallel, "rows", lambda self, program: program)
    monkeypatch.setattr(DataParallel, "started_rows", lambda self, program: program)
    with pretended("gpu" if request.param == "cuda" else request.param):
        yield request.param


def lowered(platform: str, program: Any, *arguments: Any) -> str:
    text = jax.jit(program).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()
    return text.replace("custom_call @", "custom_call ")


def on_one_device(program: Any) -> Any:
    """A step over (state, batch, …), whose sums over devices are over one."""
    whole = PartitionSpec()
    mesh = Mesh(np.array(jax.devices()[:1]), (AXIS,))

    def call(*arguments: Any) -> Any:
        return jax.shard_map(program, mesh=mesh, in_specs=whole, out_specs=whole, check_vma=False)(
            *arguments
        )

    return call


def batch(*leading: int, source: int = 19, target: int = 21) -> Batch:
    """Shapes of a batch with odd numbers of positions, which are as common as even ones."""

    def ids(*shape: int) -> np.ndarray:
        return np.ones((*leading, 6, *shape), np.int32)

    return Batch(ids(source), ids(), ids(target), ids())


RATES = DropoutRates(*(np.float32(0.1) for _ in range(3)))


@pytest.mark.parametrize("parts", [1, 2])
def test_a_training_step(platform: str, parts: int) -> None:
    step = make_step(MODEL, LossConfig(), TRAINING, SIZES, BOS, PAD)
    state = jax.eval_shape(lambda: initial_state(MODEL, TRAINING, SIZES, 1))
    text = lowered(
        platform, on_one_device(step), state, batch(parts), np.uint32(1), np.float32(0.1), RATES,
        LossData(), Hyperparameters.of(TRAINING),
    )  # fmt: skip
    found = text.count(FLASH), text.count(ITS_GRADIENT)
    assert found == ((3, 3) if platform == "cuda" else (0, 0))  # encoder, decoder, source


def test_a_step_of_several_runs(platform: str) -> None:
    step = make_population_step(make_step(MODEL, LossConfig(), TRAINING, SIZES, BOS, PAD), "vmap")
    one = jax.eval_shape(lambda: initial_state(MODEL, TRAINING, SIZES, 1))
    states = jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), one)

    def each(value: Any) -> np.ndarray:
        return np.stack([np.asarray(value)] * 2)

    numbers = MemberNumbers(
        each(np.uint32(1)), each(np.float32(0.1)), jax.tree.map(each, RATES),
        jax.tree.map(each, Hyperparameters.of(TRAINING)), each(np.int32(0)), each(np.int32(0)),
    )  # fmt: skip
    shared = Shared(numbers, np.arange(2, dtype=np.int32), np.int32(2), LossData())
    text = lowered(platform, on_one_device(step), states, batch(1, 1), shared)
    assert text.count(ITS_GRADIENT) == (3 if platform == "cuda" else 0)


def test_likelihoods(platform: str) -> None:
    program = scoring._program.__wrapped__(MODEL, SIZES, BOS)
    params = jax.eval_shape(lambda: initial_params(MODEL, *SIZES, jax.random.key(0)))
    text = lowered(platform, program, params, scoring._Rows(*batch()))
    assert text.count(FLASH) == (3 if platform == "cuda" else 0)


@pytest.mark.parametrize("cut", [None, Cut()])
def test_searches_and_draws(platform: str, cut: Cut | None) -> None:
    rows = 4 if cut is None else 8  # samples are drawn for all at once
    setting = search.SearchSetting(rows, 5, LengthPenalty(), "bound", cut, False, False)
    program = search.search_program.__wrapped__((MODEL,), SIZES, (BOS, EOS, PAD), setting, 24)
    params = jax.eval_shape(lambda: initial_params(MODEL, *SIZES, jax.random.key(0)))
    data = search.SearchData([params], [None], np.float32(1), np.uint32(1), np.float32(0))
    count = np.ones(8, np.int32)
    sentences = search.SearchRows(
        np.ones((8, 16), np.int32), count, count, count, np.ones((8, 0), np.int32), count
    )
    text = lowered(platform, program, data, sentences)
    assert (FLASH in text) == (platform == "cuda")  # of the encoder
