"""Which runs train together, and how many at a time."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from tiny import tiny_config, tiny_data, with_loss, with_training

from nmt_ls.config import Config
from nmt_ls.model import DropoutRates
from nmt_ls.training.groups import Member, group_key, groups_of, members_that_fit
from nmt_ls.training.memory import Bytes, available_bytes, bytes_of
from nmt_ls.training.objective import LossData
from nmt_ls.training.step import make_local_loss
from nmt_ls.training.trainer import batches_of, first_state


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    config = tiny_config(tmp_path_factory.mktemp("data"), shapes=1)
    return config, tiny_data(config)


def with_model(config: Config, **fields: Any) -> Config:
    return dataclasses.replace(config, model=dataclasses.replace(config.model, **fields))


SAME = {
    "seed": lambda c: dataclasses.replace(c, seed=9),
    "ε": lambda c: with_loss(c, label_smoothing=0.3),
    "schedule of ε": lambda c: with_loss(c, schedule="linear", final_label_smoothing=0.2),
    "dropout": lambda c: with_model(c, dropout=0.4),
    "no dropout": lambda c: with_model(c, dropout=0.0, activation_dropout=0.2),
    "peak": lambda c: with_training(c, learning_rate=0.5),
    "decay": lambda c: with_training(c, weight_decay=0.5),
    "what is kept": lambda c: with_training(c, keep_last=1, average_last=3, max_skipped=9),
}

APART = {
    "width": lambda c: with_model(c, width=32),
    "attention dropout": lambda c: with_model(c, attention_dropout=0.1),
    "convention": lambda c: with_loss(c, convention="fairseq"),
    "a prior": lambda c: with_loss(c, prior="unigram"),
    "class weights": lambda c: with_loss(c, class_weight_power=0.5),
    "z": lambda c: with_loss(c, z_loss=1e-4),
    "steps": lambda c: with_training(c, max_steps=13),
    "batch": lambda c: with_training(c, batch_tokens=64),
    "checkpoints": lambda c: with_training(c, checkpoint_every=5),
    "warm-up": lambda c: with_training(c, warmup_steps=7),
    "Adam": lambda c: with_training(c, beta2=0.99),
    "moving average": lambda c: with_training(c, ema_decay=0.9),
    "sampling": lambda c: dataclasses.replace(
        c, subwords=dataclasses.replace(c.subwords, sampling_candidates=4)
    ),
}


def test_what_is_data_does_not_part(prepared) -> None:
    config, data = prepared
    for name, change in SAME.items():
        assert change(config) != config, name
        assert group_key(change(config), data) == group_key(config, data), name


def test_what_is_code_parts(prepared) -> None:
    config, data = prepared
    for name, change in APART.items():
        assert group_key(change(config), data) != group_key(config, data), name
    other = dataclasses.replace(data, fingerprint="other")
    assert group_key(config, other) != group_key(config, data)


def test_priors_of_one_shape_are_stacked(prepared) -> None:
    config, data = prepared
    keys = {
        group_key(with_loss(config, **fields), data)
        for fields in (
            {"prior": "unigram"},
            {"prior": "unigram", "prior_temperature": 2.0},
            {"prior": "masked"},
        )
    }
    assert len(keys) == 1


def members_of(configs: list[Config], data) -> list[Member]:
    return [Member(c, data, Path(f"run_{i}")) for i, c in enumerate(configs)]


def names(groups: list[list[Member]]) -> list[list[str]]:
    return [[m.run_dir.name for m in group] for group in groups]


def test_groups_keep_their_order(prepared) -> None:
    config, data = prepared
    wide, patient = with_model(config, width=32), with_training(config, patience=3)
    members = members_of([config, wide, SAME["seed"](config), patient, patient, wide], data)
    found = groups_of(members, memory=10**12)
    assert names(found) == [["run_0", "run_2"], ["run_1", "run_5"], ["run_3"], ["run_4"]]
    assert groups_of([]) == []


def test_a_group_too_big_is_split_evenly(prepared) -> None:
    config, data = prepared
    members = members_of([dataclasses.replace(config, seed=s) for s in range(7)], data)
    need = bytes_of(config, data, "map")
    room = need.once + 3 * need.each
    assert members_that_fit(members, memory=room) == 3
    assert names(groups_of(members, memory=room)) == [
        ["run_0", "run_1"], ["run_2", "run_3"], ["run_4", "run_5", "run_6"],
    ]  # fmt: skip
    assert members_that_fit(members, memory=room - 1) == 2
    assert members_that_fit(members, memory=0) == 1
    assert len(groups_of(members)) == 1, "tiny ones fit on any machine"
    assert available_bytes() > 2**20


def test_the_estimate_beside_what_xla_says(prepared) -> None:
    """The state to the byte; the rest not less than XLA's temporaries and not ten times them."""
    config, data = prepared
    sizes = (data.subwords.source_size, data.subwords.target_size)
    state = first_state(config, sizes)
    total = sum(x.nbytes for x in jax.tree.leaves(state))
    map_way, vmap_way = (bytes_of(config, data, way) for way in ("map", "vmap"))
    assert map_way.each == 3 * total  # on the device, and twice on its way to a checkpoint
    assert vmap_way == Bytes(map_way.once + 2 * total, 0)

    subwords, part = data.subwords, batches_of(config, data, 1).batch(0)
    local_loss = make_local_loss(config.model, config.loss, sizes, subwords.bos, subwords.pad)
    rates = DropoutRates(*(np.float32(0.1) for _ in range(3)))

    def loss(params, key):
        return local_loss(params, part, key, 0.1, rates, LossData())

    gradient = jax.jit(jax.grad(loss, has_aux=True))
    found = gradient.lower(state.params, jax.random.key(0)).compile().memory_analysis()
    measured = found.temp_size_in_bytes + found.output_size_in_bytes
    assert measured / 2 <= map_way.once - 2 * total <= 10 * measured
