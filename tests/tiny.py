"""What tests of training share: a corpus of a few generated pairs, a model of width 16."""

import dataclasses
import os
from pathlib import Path
from typing import Any

import jax
import numpy as np

from nmt_ls.config import Config, CorpusConfig, DataConfig, LossConfig, ModelConfig, TrainingConfig
from nmt_ls.data.batches import Batch
from nmt_ls.data.prepare import PreparedData, prepare
from nmt_ls.model import DropoutRates, initial_params
from nmt_ls.parallel import DataParallel, to_host
from nmt_ls.training.step import make_step, state_from

WORDS = [f"w{i:02d}" for i in range(40)]

MODEL = ModelConfig(
    encoder_layers=1, decoder_layers=1, width=16, heads=2, feed_forward=32, max_positions=32
)

TRAINING = TrainingConfig(
    max_steps=12,
    batch_tokens=48,
    shapes=2,
    learning_rate=3e-3,
    warmup_steps=6,
    devices=1,
    log_every=1,
    validate_every=0,
    checkpoint_every=4,
    average_last=0,
)


def sentence_pairs(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Sentences of 1 to 9 words; the target is the source in reverse, now and then longer."""
    generator = np.random.default_rng(seed)
    pairs = []
    for _ in range(count):
        words = [WORDS[i] for i in generator.integers(len(WORDS), size=generator.integers(1, 10))]
        more = words[:1] * int(generator.integers(0, 3))
        pairs.append((" ".join(words), " ".join(words[::-1] + more)))
    return pairs


def tiny_config(folder: Path, *, pairs: int = 90, model: Any = None, **training: Any) -> Config:
    """A configuration over whitespace tokens, its text written to `folder`; 44 words in all."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, count, seed in (("train", pairs, 0), ("valid", 8, 1)):
        texts = zip(*sentence_pairs(count, seed), strict=True)
        for language, text in zip(("en", "de"), texts, strict=True):
            # Whole at every moment: another process may be reading it.
            beside = folder / f".{name}.{language}.{os.getpid()}"
            beside.write_text("\n".join(text) + "\n", encoding="utf-8")
            os.replace(beside, folder / f"{name}.{language}")
    data = DataConfig(
        root=str(folder),
        train=CorpusConfig(source="train.en", target="train.de"),
        validation=CorpusConfig(source="valid.en", target="valid.de"),
        max_length=16,
        pretokenized=True,
        cache_dir=str(folder / "cache"),
    )
    return Config(
        data=data,
        model=dataclasses.replace(MODEL, **(model or {})),
        training=dataclasses.replace(TRAINING, **training),
    )


def tiny_data(config: Config) -> PreparedData:
    """The prepared data of a configuration, without a word on stderr."""
    return prepare(config, log=lambda line: None)


def with_training(config: Config, **fields: Any) -> Config:
    """The configuration with other training settings."""
    return dataclasses.replace(config, training=dataclasses.replace(config.training, **fields))


def with_loss(config: Config, **fields: Any) -> Config:
    """The configuration with other loss settings."""
    return dataclasses.replace(config, loss=LossConfig(**fields))


def random_params(
    config: ModelConfig, source_size: int, target_size: int, seed: int = 0
) -> dict[str, np.ndarray]:
    """Parameters of a model drawn by numpy, biases and norms too: nothing is compiled."""
    shapes = jax.eval_shape(
        lambda key: initial_params(config, source_size, target_size, key), jax.random.key(0)
    )
    generator = np.random.default_rng(seed)
    params = {}
    for name, shape in shapes.items():
        noise = generator.normal(size=shape.shape)
        fan = shape.shape[-1] if name.endswith("table") else shape.shape[0]
        params[name] = noise * fan**-0.5 if len(shape.shape) == 2 else noise * 0.1
        params[name] = (params[name] + name.endswith("scale")).astype(np.float32)
    return params


def random_batch(
    seed: int, rows: int, source: int, target: int, vocab: int = 44, empty: int = 0
) -> Batch:
    """A batch of random ids (3 and up) and lengths, its last `empty` rows without a token."""
    generator = np.random.default_rng(seed)
    sides = []
    for length in (source, target):
        lengths = generator.integers(1, length + 1, size=rows).astype(np.int32)
        lengths[rows - empty :] = 0
        ids = generator.integers(3, vocab, size=(rows, length)).astype(np.int32)
        ids[np.arange(length) >= lengths[:, None]] = 0
        sides += [ids, lengths]
    return Batch(*sides)


def assert_close(a: Any, b: Any, relative: float) -> None:
    """|a − b| ≤ relative · max|b|, the house's meaning of a tolerance."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    assert a.shape == b.shape, (a.shape, b.shape)
    difference = np.max(np.abs(a - b), initial=0.0)
    assert difference <= relative * np.max(np.abs(b), initial=0.0), difference


def leaf_errors(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> dict[str, float]:
    """‖a − b‖/‖b‖ of each parameter."""
    assert a.keys() == b.keys()
    return {
        name: float(np.linalg.norm(np.asarray(a[name]) - b[name]) / np.linalg.norm(b[name]))
        for name in b
    }


def uneven_batches(steps: int, multiple: int = 1) -> list[Batch]:
    """Batches of 29 rows of all lengths, filled up with empty rows to a multiple."""
    empty = -29 % multiple
    batches = []
    for step in range(steps):
        batch = random_batch(step, 29, source=6, target=7)
        rows = [np.pad(x, [(0, empty)] + [(0, 0)] * (x.ndim - 1)) for x in batch]
        batches.append(Batch(*rows))
    return batches


def params_after(
    steps: int, devices: int = 1, parts: int = 1, dropout: float = 0.0
) -> dict[str, np.ndarray]:
    """Parameters after training on `uneven_batches`, 6 steps of warm-up."""
    model = dataclasses.replace(MODEL, dropout=dropout)
    training = dataclasses.replace(TRAINING, devices=devices, accumulation=parts)
    sizes = (44, 44)
    parallel = DataParallel(devices)
    step = parallel.step(make_step(model, LossConfig(), training, sizes, bos=2, pad=0))
    params = jax.tree.map(jax.numpy.asarray, random_params(model, *sizes))
    state = parallel.replicate(state_from(params, training))
    rates = DropoutRates(*(np.float32(rate) for rate in (dropout, 0, 0)))
    for batch in uneven_batches(steps, parallel.count * parts):
        rows = parallel.split_rows(batch, parts)
        state, _ = step(state, rows, np.uint32(1), np.float32(0.1), rates)
    return to_host(state.params)
