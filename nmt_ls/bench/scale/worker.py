"""The training step on so many virtual devices: run by `bench scaling` in a process of its own.

How many devices a CPU pretends to have is decided as jax begins, hence the process.
"""

import json
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nmt_ls.bench.random_batch import PAD, random_batch
from nmt_ls.bench.scale.collectives import collectives
from nmt_ls.config import LossConfig, ModelConfig, TrainingConfig
from nmt_ls.model import DropoutRates, Params
from nmt_ls.parallel import DataParallel, to_host
from nmt_ls.training.objective import LossData
from nmt_ls.training.optimizer import Hyperparameters
from nmt_ls.training.step import initial_state, make_step, state_from

_BOS = 2
_SMOOTHING = 0.1
_HEADS = 4


def model_of_settings(settings: dict[str, Any]) -> ModelConfig:
    """The Transformer that is trained, without dropout."""
    return ModelConfig(
        encoder_layers=settings["layers"],
        decoder_layers=settings["layers"],
        width=settings["width"],
        heads=_HEADS,
        feed_forward=4 * settings["width"],
        dropout=0.0,
    )


def train(settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Compiles the step on all devices of this process, and takes `steps` of it.

    Args:
      settings: of `bench_scaling`: layers, width, vocab_size, rows, steps.

    Returns:
      what `bench_scaling` says of the devices; the parameters before and after, as
      `before/NAME` and `after/NAME`.
    """
    model, sizes = model_of_settings(settings), (settings["vocab_size"],) * 2
    # The rate of real training, soon: parameters that hardly move would agree whatever we do.
    training = TrainingConfig(warmup_steps=2, learning_rate=1e-3)
    parallel = DataParallel()
    params = _drawn(jax.device_get(initial_state(model, training, sizes, seed=0).params))
    state = parallel.replicate(state_from(jax.tree.map(jax.numpy.asarray, params), training))
    rates = DropoutRates(*(np.float32(0) for _ in range(3)))
    numbers = Hyperparameters.of(training)
    scalars = (np.uint32(1), np.float32(_SMOOTHING), rates, LossData(), numbers)
    batches = [
        parallel.split_rows(random_batch(i, settings["rows"], settings["vocab_size"]))
        for i in range(settings["steps"])
    ]
    step = make_step(model, LossConfig(), training, sizes, _BOS, PAD)

    began = time.perf_counter()
    compiled = parallel.lowered(step, state, batches[0], *scalars).compile()
    compile_seconds = time.perf_counter() - began
    losses, seconds = [], []
    for batch in batches:
        began = time.perf_counter()
        state, sums = compiled(state, batch, *scalars)
        jax.block_until_ready(state)
        seconds.append(time.perf_counter() - began)
        losses.append(float(to_host(sums.loss)) / float(to_host(sums.tokens)))
    found = {
        "devices": parallel.count,
        "compile_seconds": compile_seconds,
        "step_seconds": seconds,
        "losses": losses,
        **collectives(compiled.as_text() or "")._asdict(),
        "parameters": sum(x.size for x in params.values()),
        "gradient_bytes": sum(x.nbytes for x in params.values()),
    }
    after = to_host(state.params)
    named = {"before": params, "after": after}
    return found, {f"{when}/{k}": x for when, tree in named.items() for k, x in tree.items()}


def _drawn(params: Params) -> dict[str, np.ndarray]:
    """With biases and norms that are not all alike: 0 ± an update says little of agreement."""
    random = np.random.default_rng(0)
    return {
        name: np.asarray(x + 0.1 * random.standard_normal(x.shape) * (x.ndim == 1), np.float32)
        for name, x in sorted(params.items())
    }


def main(folder: Path) -> None:
    """Reads `settings.json`, writes `found.json` and `params.npz` beside it."""
    found, params = train(json.loads((folder / "settings.json").read_text()))
    np.savez(folder / "params.npz", **params)  # type: ignore[arg-type]
    (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
