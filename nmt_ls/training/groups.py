"""Which runs can train together, and how many of them fit in memory."""

import dataclasses
from collections.abc import Hashable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from nmt_ls.config import Config
from nmt_ls.data.prepare import PreparedData
from nmt_ls.errors import UserError
from nmt_ls.training.bookkeeping import Validate
from nmt_ls.training.memory import available_bytes, bytes_of
from nmt_ls.training.population_step import Way, default_way
from nmt_ls.training.programs import decisive
from nmt_ls.training.runs import LoadedRun


@dataclasses.dataclass(frozen=True)
class Member:
    """A run of a population; the fields are `fit`'s arguments."""

    config: Config
    data: PreparedData
    run_dir: Path
    validate: Validate | None = None
    initial_params: dict[str, np.ndarray] | None = None
    teacher: LoadedRun | None = None

    @property
    def sizes(self) -> tuple[int, int]:
        """Vocabulary sizes of source and target."""
        return self.data.subwords.source_size, self.data.subwords.target_size


_LOOP = ("max_steps", "batch_tokens", "shapes", "log_every", "validate_every", "checkpoint_every")
"""Training settings that decide when the loop does what."""


def group_key(config: Config, data: PreparedData) -> tuple[tuple[str, Hashable], ...]:
    """What runs must have in common to train together, as sorted (name, value) pairs.

    They may differ in seed, in ε (and β), its schedule and its prior, in dropout, peak learning
    rate and weight decay, and in which checkpoints they keep.
    """
    model, loss, training = decisive(config)
    sections: dict[str, Any] = {"model": model, "loss": loss, "training": training}
    key: dict[str, Hashable] = {
        f"{section}.{name}": value
        for section, settings in sections.items()
        for name, value in dataclasses.asdict(settings).items()
    }
    # On for one is on for all. Not so attention dropout, which wants another kernel.
    for name in ("model.dropout", "model.activation_dropout", "training.weight_decay"):
        del key[name]
    key |= {f"training.{name}": getattr(config.training, name) for name in _LOOP}
    # Arrays of a shape can be stacked; whether there are any is the program's concern.
    key["loss.prior"] = config.loss.prior != "uniform"
    key["loss.class_weight_power"] = config.loss.class_weight_power > 0
    key["loss.graduated_run"] = config.loss.graduated_run
    for name in ("sampling_candidates", "sampling_alpha"):
        key[f"subwords.{name}"] = getattr(config.subwords, name)
    key["data.train"] = data.fingerprint
    key["subwords"] = data.subwords.fingerprint
    return tuple(sorted(key.items()))


def check_together(members: Sequence[Member]) -> None:
    """Refuse members that cannot train together.

    Raises:
      UserError: what they differ in, by name; early stopping; a directory that is two members'.
    """
    first = members[0]
    expected = dict(group_key(first.config, first.data))
    for m in members:
        patience = m.config.training.patience
        if patience:
            raise UserError(
                f"{m.run_dir}: training.patience={patience} ends a run by itself; such runs are"
                " trained alone (training.patience=0 trains them together)"
            )
        found = dict(group_key(m.config, m.data))
        different = [name for name in expected if found[name] != expected[name]]
        if different:
            raise UserError(
                f"{first.run_dir} and {m.run_dir} cannot train together: they differ in"
                f" {', '.join(different[:4])}"
            )
    if len({m.run_dir.resolve() for m in members}) < len(members):
        raise UserError("two runs of a population have the same run directory")


def groups_of(
    members: Sequence[Member], *, memory: int | None = None, way: Way | None = None
) -> list[list[Member]]:
    """Members in groups that `fit_population` takes, in the order of each group's first.

    Runs with early stopping are alone. A group that would not fit in memory is split evenly.

    Args:
      members: runs that are to be trained.
      memory: bytes to go by; None: what a device has, or on CPU what is free.
      way: as `fit_population` is going to be called.
    """
    by_key: dict[Hashable, list[Member]] = {}
    for i, m in enumerate(members):
        key: Hashable = group_key(m.config, m.data)
        by_key.setdefault(("alone", i) if m.config.training.patience else key, []).append(m)
    groups = []
    for group in by_key.values():
        most = members_that_fit(group, memory=memory, way=way) if len(group) > 1 else 1
        parts = -(-len(group) // most)
        bounds = [len(group) * k // parts for k in range(parts + 1)]
        groups += [group[a:b] for a, b in pairwise(bounds)]
    return groups


def members_that_fit(
    group: Sequence[Member], *, memory: int | None = None, way: Way | None = None
) -> int:
    """How many members of a group can train together, at least 1. Arguments as of `groups_of`."""
    memory = available_bytes() if memory is None else memory
    need = bytes_of(group[0].config, group[0].data, way or default_way())
    return max(1, min(len(group), (memory - need.once) // need.each))
