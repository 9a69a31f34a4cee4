"""What training is measured with: a size, a corpus, the batches of some of its steps."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nmt_ls.config import (
    Config,
    CorpusConfig,
    DataConfig,
    ModelConfig,
    SubwordsConfig,
    TrainingConfig,
)
from nmt_ls.config_files import load_config, with_settings
from nmt_ls.data.batches import Batch, BatchPlan
from nmt_ls.data.prepare import prepare
from nmt_ls.errors import UserError
from nmt_ls.parallel import DataParallel
from nmt_ls.training.trainer import batches_of


class Size(NamedTuple):
    """A model and its batches."""

    model: ModelConfig
    vocab_size: int
    batch_tokens: int
    """Target positions of a batch."""


def _transformer(layers: int, width: int, heads: int, feed_forward: int) -> ModelConfig:
    return ModelConfig(
        encoder_layers=layers, decoder_layers=layers, width=width, heads=heads,
        feed_forward=feed_forward,
    )  # fmt: skip


SIZES = {
    "tiny": Size(_transformer(1, 32, 2, 64), 300, 256),
    "cpu": Size(_transformer(3, 256, 4, 1024), 8_000, 4_096),
    "base": Size(_transformer(6, 512, 8, 2048), 32_000, 25_000),
    "big": Size(_transformer(6, 1024, 16, 4096), 32_000, 25_000),
}
"""Pre-norm, one matrix for both sides' embeddings and the output; base and big: Vaswani et al."""

PHRASEBOOK = DataConfig(
    train=CorpusConfig(kind="phrasebook", split="train", size=20_000),
    max_length=64,
)
"""The corpus where none is given."""

PHRASEBOOK_PIECES = 1_000
"""More than its few words support are not to be had; the model has its size's all the same."""


OVERRIDABLE = (
    *(f"model.{n}" for n in ("encoder_layers", "decoder_layers", "width", "heads")),
    *(f"model.{n}" for n in ("feed_forward", "dropout", "compute", "attention")),
    *(f"training.{n}" for n in ("learning_rate", "beta1", "beta2", "epsilon", "weight_decay")),
    *(f"training.{n}" for n in ("clip_norm", "batch_tokens", "shapes", "devices")),
)
"""Settings that peers are told (`peers.Setting`), that make the batches of all sides, or that only
say how ours computes the same."""


class Task(NamedTuple):
    """The same work for all sides."""

    config: Config
    corpus: str
    """For people."""
    vocab_size: int
    special: dict[str, int]
    """Ids of pad, unk, bos, eos."""
    batches: list[Batch]
    """Row multiples of our devices."""
    real_share: float
    """Of source and target positions of the whole corpus."""

    @property
    def tokens(self) -> int:
        """Real target tokens of all batches."""
        return sum(int(b.target_lengths.sum()) for b in self.batches)

    @property
    def positions(self) -> int:
        """Target positions of all batches."""
        return sum(b.target.size for b in self.batches)


def make_task(
    size: str, *, steps: int, batch_tokens: int, compute: str, config: Path | None,
    overrides: Sequence[str],
) -> Task:  # fmt: skip
    """The batches of `steps` steps, spread over an epoch's shapes as the epoch is.

    Args:
      size: of `SIZES`.
      steps: so many batches.
      batch_tokens: target positions of a batch; 0: the size's.
      compute: `model.compute`.
      config: a YAML file whose text and subwords are used; None: the built-in corpus.
      overrides: `KEY=VALUE`: of data, subwords and what all sides are told (`OVERRIDABLE`).

    Raises:
      UserError: the configuration or its text are at fault, or an override would hold for our side
        alone.
    """
    for override in overrides:
        key = override.partition("=")[0]
        if not key.startswith(("data.", "subwords.")) and key not in OVERRIDABLE:
            raise UserError(
                f"--set {override}: it would hold for our side alone; there are data.*, "
                f"subwords.*, {', '.join(OVERRIDABLE)}"
            )
    model, vocab_size, tokens = SIZES[size]
    if config is None:
        pieces = min(vocab_size, PHRASEBOOK_PIECES)
        base = Config(data=PHRASEBOOK, subwords=SubwordsConfig(vocab_size=pieces))
    else:
        text = load_config(config, [])
        subwords = dataclasses.replace(text.subwords, vocab_size=vocab_size)
        # Test sets are not read, nor is a validation.
        base = Config(data=dataclasses.replace(text.data, tests={}), subwords=subwords)
    base = dataclasses.replace(
        base,
        data=dataclasses.replace(base.data, validation=None),
        model=model,
        training=TrainingConfig(batch_tokens=batch_tokens or tokens, weight_decay=0.01),
    )
    base = with_settings(base, {"model.compute": compute}, overrides)
    layers = (base.model.encoder_layers, base.model.decoder_layers)
    if layers[0] != layers[1]:
        raise UserError(
            f"model.encoder_layers={layers[0]} and model.decoder_layers={layers[1]}: the other "
            "sides have one number of layers; set both alike"
        )
    data = prepare(base)
    if data.subwords.source_size != data.subwords.target_size:
        raise UserError("subwords.joint=false: the sides of this benchmark share one vocabulary")
    parallel = DataParallel(base.training.devices)
    stream = batches_of(base, data, parallel.count)
    return Task(
        base,
        "the built-in phrasebook" if config is None else config.name,
        max(vocab_size, data.subwords.target_size),
        {name: getattr(data.subwords, name) for name in ("pad", "unk", "bos", "eos")},
        [stream.batch(step) for step in representative_steps(stream.plan, steps)],
        stream.plan.real_share,
    )


def representative_steps(plan: BatchPlan, count: int) -> list[int]:
    """So many steps whose shapes stand for those of an epoch: at quantiles of their length."""
    lengths = [sum(plan.shapes[plan.shape_of(step)]) for step in range(plan.steps_in(0))]
    order = np.argsort(lengths, kind="stable")
    places = (np.arange(count) + 0.5) * len(order) / count
    return [int(order[int(place)]) for place in places]
