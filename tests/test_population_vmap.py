"""Members side by side, as accelerators have them: interrupted, continued, on several devices."""

import dataclasses
import os
import shutil
import signal
from pathlib import Path

import pytest
from test_population import NAMES, config_in, members_of, perplexity
from test_trainer import assert_same_end, steps_logged, whole_state
from tiny import leaf_errors, tiny_data, with_training

from nmt_ls.training.groups import Member, groups_of
from nmt_ls.training.interruption import Interrupted
from nmt_ls.training.memory import bytes_of
from nmt_ls.training.metrics import read_metrics
from nmt_ls.training.population import fit_population
from nmt_ls.training.runs import load_params
from nmt_ls.training.trainer import fit


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    config = config_in(tmp_path_factory.mktemp("data"))
    return config, tiny_data(config)


@pytest.fixture(scope="module")
def straight(prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    assert fit_population(members_of(prepared, folder), way="vmap") == [12, 12, 12]
    return folder


def without_average(prepared, folder: Path, validate=perplexity) -> list[Member]:
    return members_of(prepared, folder, validate, average_last=0)


def assert_as_alone(m: Member, together: Path, alone: Path, checkpoints: tuple[str, ...]) -> None:
    """‖a − b‖/‖b‖ ≤ 1e-5 of every array, and the same records but for rounding."""
    fit(m.config, m.data, alone, m.validate)
    for checkpoint in checkpoints:
        a, b = (load_params(run, checkpoint) for run in (together, alone))
        assert a[1] == b[1]
        errors = leaf_errors(a[0], b[0])
        worst = max(errors, key=errors.get)
        assert errors[worst] <= 1e-5, (together.name, checkpoint, worst, errors[worst])
    ours, theirs = (read_metrics(run / "metrics.jsonl") for run in (together, alone))
    assert [r["step"] for r in ours] == [r["step"] for r in theirs] == list(range(1, 13))
    for x, y in zip(ours, theirs, strict=True):
        for field in ("loss", "nll", "gradient_norm", "learning_rate", "target_tokens_total"):
            assert x[field] == pytest.approx(y[field], rel=2e-5), field


def assert_same(folder: Path, straight: Path) -> None:
    """The same to the bit, and every step logged once."""
    for name in NAMES:
        assert steps_logged(folder / name) == list(range(1, 13))
        assert_same_end(folder / name, straight / name)
        a, b = (read_metrics(f / name / "metrics.jsonl") for f in (folder, straight))
        assert [r["loss"] for r in a] == [r["loss"] for r in b]


def test_members_end_as_runs_alone(prepared, straight: Path, tmp_path: Path) -> None:
    ends = []
    for m in members_of(prepared, tmp_path):
        name = m.run_dir.name
        assert_as_alone(m, straight / name, m.run_dir, ("last", "average"))
        ends.append(load_params(straight / name, "last")[0])
    for other in ends[1:]:
        assert min(leaf_errors(ends[0], other).values()) > 1e-4, "members differ"


def test_interrupted_and_continued_is_the_unbroken_run(
    prepared, straight: Path, tmp_path: Path
) -> None:
    def validate(params: dict, step: int) -> dict[str, float]:
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return perplexity(params, step)

    members = without_average(prepared, tmp_path)
    members[2] = dataclasses.replace(members[2], validate=validate)
    with pytest.raises(Interrupted):
        fit_population(members, way="vmap")
    assert [whole_state(tmp_path / name)[0] for name in NAMES] == [6, 6, 6]
    assert fit_population(without_average(prepared, tmp_path), way="vmap") == [12, 12, 12]
    assert_same(tmp_path, straight)


def test_those_that_finished_are_left_out(prepared, straight: Path, tmp_path: Path) -> None:
    """A kill while the last checkpoints were written: the rest is another, smaller program."""
    folder = tmp_path / "runs"
    shutil.copytree(straight, folder, ignore=shutil.ignore_patterns("average"))
    for name in NAMES[:2]:
        shutil.rmtree(folder / name / "checkpoints" / "12")
    arrays = folder / NAMES[2] / "checkpoints" / "12"
    before = {p: p.stat().st_mtime_ns for p in arrays.rglob("*")}
    assert fit_population(without_average(prepared, folder), way="vmap") == [12, 12, 12]
    assert {p: p.stat().st_mtime_ns for p in arrays.rglob("*")} == before
    for name in NAMES:
        a, b = (load_params(f / name, "last")[0] for f in (folder, straight))
        assert max(leaf_errors(a, b).values()) <= 1e-5
        assert steps_logged(folder / name) == list(range(1, 13))


def test_several_groups_each_on_several_devices(prepared, tmp_path: Path) -> None:
    """Groups as memory decides them; the batches of each over two devices."""
    config, data = prepared
    two = (with_training(config, devices=2, average_last=0), data)
    members = members_of(two, tmp_path / "together")
    more = dataclasses.replace(members[0].config, seed=11)
    run_dir = tmp_path / "together" / "fourth"
    members.append(dataclasses.replace(members[0], config=more, run_dir=run_dir))
    need = bytes_of(members[0].config, data, "vmap")
    groups = groups_of(members, memory=int(need.once + 2.5 * need.each), way="vmap")
    assert [[m.run_dir.name for m in group] for group in groups] == [
        ["hard", "smooth"], ["other_seed", "fourth"]
    ]  # fmt: skip
    # Either group is the same program.
    assert fit_population(groups[1], way="vmap") == [12, 12]
    m = groups[1][1]
    assert_as_alone(m, m.run_dir, tmp_path / "alone", ("last",))
