"""Runs that were treated differently are not compared."""

import dataclasses
from types import SimpleNamespace
from typing import Any

import pytest

from nmt_ls.config import Config, CorpusConfig, DataConfig, TrainingConfig
from nmt_ls.errors import UserError
from nmt_ls.study.alike import refuse_other_tests

CONFIG = Config(
    data=DataConfig(tests={"test": CorpusConfig(kind="phrasebook")}),
    training=TrainingConfig(average_last=2),
)


def checked(*measured: dict[str, Any], settings: Any = None, pieces: str = "", **training) -> None:
    config = dataclasses.replace(CONFIG, training=dataclasses.replace(CONFIG.training, **training))
    runs = [
        {"run": f"r{i}", "settings": (settings or {}).get(i, {}), "results": {"test": results}}
        for i, results in enumerate(measured)
    ]
    subwords: Any = [SimpleNamespace(fingerprint=pieces * i) for i in range(len(runs))]
    refuse_other_tests(runs, [config] * len(runs), subwords)


NEW, OLD = ({"fingerprint": name, "checkpoint": "average of 3, 6"} for name in ("new", "old"))


def test_other_text() -> None:
    checked(NEW, NEW)
    with pytest.raises(UserError, match="r0 and r1 were evaluated on different text of test\n`nmt"):
        checked(NEW, OLD)
    checked(NEW, OLD, pieces="x")  # the digest is of the subwords too
    checked(NEW, OLD, settings={1: {"data.noise": 0.2}})
    checked(NEW, {})  # of an older version
    with pytest.raises(UserError, match="r1 and r2 were evaluated on different text"):
        checked({}, NEW, OLD)


def test_other_checkpoints() -> None:
    other = NEW | {"checkpoint": "average of 5, 6"}
    why = (
        "r0 was measured as average of 3, 6, r1 as average of 5, 6, so that they cannot be compared"
    )
    with pytest.raises(UserError, match=why):
        checked(NEW, other)
    checked(NEW, other, settings={1: {"training.checkpoint_every": 1}})
    # Where patience ran out, and which step was best, is each run's own.
    checked(NEW, other, patience=3)
    checked(NEW, NEW | {"checkpoint": "6"}, average_last=0)


def test_sets_that_the_configuration_does_not_name() -> None:
    runs = [
        {"run": name, "settings": {}, "results": {"test": NEW, "mine": measured}}
        for name, measured in (("a", NEW), ("b", OLD | {"checkpoint": "6"}))
    ]
    subwords: Any = [SimpleNamespace(fingerprint="")] * 2
    refuse_other_tests(runs, [CONFIG] * 2, subwords)
