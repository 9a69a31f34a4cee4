"""Runs trained together end as runs trained alone, whatever happens on the way."""

import dataclasses
import logging
import os
import re
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pytest
from killed import killed_and_run_again
from test_trainer import assert_same_end, steps_logged, whole_state
from tiny import leaf_errors, tiny_config, tiny_data, with_loss, with_training

from nmt_ls.config import Config
from nmt_ls.errors import UserError
from nmt_ls.training import population
from nmt_ls.training.checkpoints import Checkpoints, save_average
from nmt_ls.training.groups import Member
from nmt_ls.training.interruption import Interrupted
from nmt_ls.training.metrics import read_metrics
from nmt_ls.training.population import SomeDiverged, fit_population
from nmt_ls.training.runs import load_params, load_run
from nmt_ls.training.trainer import fit

NAMES = ("hard", "smooth", "other_seed")


def perplexity(params: dict, step: int) -> dict[str, float]:
    return {"perplexity": 10.0 - step + float(np.sum(params["target_embedding.table"])) % 1}


def config_in(folder: Path) -> Config:
    return tiny_config(
        folder, shapes=1, ema_decay=0.9, weight_decay=0.01, validate_every=6, average_last=2
    )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    config = config_in(tmp_path_factory.mktemp("data"))
    return config, tiny_data(config)


def configs_of(config: Config) -> list[Config]:
    smooth = with_loss(with_training(config, learning_rate=1e-3, weight_decay=0.1), beta=0.7)
    model = dataclasses.replace(config.model, dropout=0.3)
    other = dataclasses.replace(with_loss(config, label_smoothing=0.2), seed=7, model=model)
    return [with_loss(config, label_smoothing=0.0), smooth, other]


def members_of(prepared, folder: Path, validate=perplexity, **training) -> list[Member]:
    config, data = prepared
    return [
        Member(with_training(c, **training), data, folder / name, validate)
        for name, c in zip(NAMES, configs_of(config), strict=True)
    ]


@pytest.fixture(scope="module")
def straight(prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight")
    assert fit_population(members_of(prepared, folder)) == [12, 12, 12]
    return folder


def contents(run: Path) -> set[str]:
    return {str(p.relative_to(run)) for p in (*run.glob("*"), *run.glob("checkpoints/*"))}


def assert_all_same(folder: Path, straight: Path) -> None:
    for name in NAMES:
        assert_same_end(folder / name, straight / name)
        assert steps_logged(folder / name) == list(range(1, 13))
        a, b = (read_metrics(f / name / "metrics.jsonl") for f in (folder, straight))
        for field in ("loss", "epoch", "target_tokens_total", "skipped_total", "learning_rate"):
            assert [r[field] for r in a] == [r[field] for r in b], field
        assert [r.get("validation_perplexity") for r in a] == [
            r.get("validation_perplexity") for r in b
        ]
        assert contents(folder / name) == contents(straight / name) - {"checkpoints/average"}


def again(prepared, folder: Path, validate=perplexity) -> list[Member]:
    """The members, to be continued; averaging takes the longest and is tested once."""
    return members_of(prepared, folder, validate, average_last=0)


def copied(straight: Path, folder: Path) -> Path:
    """A copy of the finished runs, without their averages."""
    shutil.copytree(straight, folder / "runs", ignore=shutil.ignore_patterns("average"))
    return folder / "runs"


def test_members_end_as_runs_alone(prepared, straight: Path, tmp_path: Path) -> None:
    for m in members_of(prepared, tmp_path):
        alone, member = m.run_dir, straight / m.run_dir.name
        assert fit(m.config, m.data, alone, m.validate) == 12
        assert contents(alone) == contents(member)
        for checkpoint in ("last", "average"):
            a, b = (load_params(run, checkpoint) for run in (member, alone))
            assert a[1] == b[1]
            errors = leaf_errors(a[0], b[0])
            worst = max(errors, key=errors.get)
            assert errors[worst] <= 1e-5, (worst, errors[worst])
        ours, theirs = (read_metrics(run / "metrics.jsonl") for run in (member, alone))
        timed = {"seconds", "target_tokens_per_second", "compilation_cache_misses"}
        for x, y in zip(ours, theirs, strict=True):
            assert x.keys() == y.keys()
            for field in x.keys() - timed - {"validation_perplexity"}:
                assert x[field] == pytest.approx(y[field], rel=2e-5), field
        ends = [whole_state(run) for run in (member, alone)]
        assert jax.tree.structure(ends[0][1]) == jax.tree.structure(ends[1][1])
        assert ends[0][2]["tokens"] == ends[1][2]["tokens"]
        assert load_run(member).config == m.config


def test_one_compilation_for_each_shape(
    prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever the members' numbers: as many programs as batches have shapes."""
    two = {"shapes": 2, "max_steps": 4, "validate_every": 0, "average_last": 0}
    population.compiled_population_step.cache_clear()
    with caplog.at_level(logging.WARNING), jax.log_compiles():
        fit_population(members_of(prepared, tmp_path, **two))
    # The step takes batches of [devices, seeds, parts, rows, tokens].
    step = re.compile(r"Compiling .*int32\[1,2,1,\d+,\d+\]")
    programs = [r for r in caplog.records if step.search(r.getMessage())]
    records = read_metrics(tmp_path / "smooth" / "metrics.jsonl")
    assert len(programs) == records[-1]["compilations"] == 2


def test_a_finished_population_is_left_alone(prepared, straight: Path) -> None:
    files = [p for p in straight.rglob("*") if p.is_file() and p.name != "environment.json"]
    before = {p: p.read_bytes() for p in files if p.name == "metrics.jsonl" or "average" in str(p)}
    assert fit_population(members_of(prepared, straight)) == [12, 12, 12]
    assert {p: p.read_bytes() for p in before} == before


def test_an_average_of_older_checkpoints_is_renewed(prepared, straight: Path) -> None:
    """A kill after the last step of a continued population leaves some members their old one."""
    averages = [straight / name / "checkpoints" / "average" for name in NAMES]
    before = [load_params(straight / name, "average") for name in NAMES]
    state = {p: p.stat().st_mtime_ns for average in averages[:2] for p in average.rglob("*")}
    save_average(averages[2].parent, before[0][0], [4, 8])
    assert fit_population(members_of(prepared, straight)) == [12, 12, 12]
    after = load_params(straight / NAMES[2], "average")
    assert after[1] == before[2][1] == "average of 8, 12"
    assert all((after[0][k] == before[2][0][k]).all() for k in after[0])
    assert {p: p.stat().st_mtime_ns for p in state} == state


def test_interrupted_and_continued(prepared, straight: Path, tmp_path: Path) -> None:
    def validate(params: dict, step: int) -> dict[str, float]:
        if step == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return perplexity(params, step)

    members = again(prepared, tmp_path)
    members[1] = dataclasses.replace(members[1], validate=validate)
    with pytest.raises(Interrupted):
        fit_population(members)
    for name in NAMES:
        assert whole_state(tmp_path / name)[0] == 6
        assert steps_logged(tmp_path / name) == [1, 2, 3, 4, 5, 6]
    assert fit_population(again(prepared, tmp_path)) == [12, 12, 12]
    for name in NAMES:  # a signal leaves a checkpoint off the grid, here that of the validation
        shutil.rmtree(tmp_path / name / "checkpoints" / "6", ignore_errors=True)
        shutil.rmtree(straight / name / "checkpoints" / "6", ignore_errors=True)
    assert_all_same(tmp_path, straight)


@pytest.mark.parametrize("lost", [("hard", [8, 12]), ("other_seed", [4, 6, 8, 12])])
def test_members_go_back_to_what_all_have(
    prepared, straight: Path, tmp_path: Path, lost: tuple[str, list[int]]
) -> None:
    """A kill while the last checkpoints were being written, by the state it leaves behind."""
    folder = copied(straight, tmp_path)
    for name in NAMES:
        for step in lost[1] if name == lost[0] else [12]:
            shutil.rmtree(folder / name / "checkpoints" / str(step), ignore_errors=True)
    assert fit_population(again(prepared, folder)) == [12, 12, 12]
    assert_all_same(folder, straight)


def test_what_was_trained_apart_is_not_lost(prepared, straight: Path, tmp_path: Path) -> None:
    """One was interrupted at step 8 before the others were begun, and one of these at step 1."""
    folder = copied(straight, tmp_path)
    for step in (6, 12):
        shutil.rmtree(folder / "smooth" / "checkpoints" / str(step), ignore_errors=True)
    shutil.rmtree(folder / "hard")
    shutil.rmtree(folder / "other_seed" / "checkpoints")
    (folder / "other_seed" / "checkpoints").mkdir()
    for name, steps in (("smooth", 8), ("other_seed", 1)):
        path = folder / name / "metrics.jsonl"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:steps]))
    arrays = folder / "smooth" / "checkpoints" / "8"
    before = {p: p.stat().st_mtime_ns for p in arrays.rglob("*")}
    assert fit_population(again(prepared, folder)) == [12, 12, 12]
    assert {p: p.stat().st_mtime_ns for p in before} == before
    for name in NAMES:  # to the bit: members that are not trained keep their place
        assert_same_end(folder / name, straight / name)
        assert steps_logged(folder / name) == list(range(1, 13))


def test_one_that_is_trained_apart_diverges(
    prepared, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copied(straight, tmp_path)
    for step in (8, 12):
        shutil.rmtree(folder / "smooth" / "checkpoints" / str(step))
    shutil.rmtree(folder / "other_seed")
    plain = population._Group.smoothing

    def smoothing(self, run: int, step: int) -> float:
        spoilt = self.runs[run].run_dir.name == "smooth" and step >= 6
        return float("nan") if spoilt else plain(self, run, step)

    monkeypatch.setattr(population._Group, "smoothing", smoothing)
    with pytest.raises(SomeDiverged, match=r"1 of 3 .*smooth: .*since step 7") as caught:
        fit_population(again(prepared, folder))
    assert list(caught.value.reasons) == [folder / "smooth"]
    assert caught.value.steps[2] == 12


def test_what_has_finished_is_not_done_again(prepared, straight: Path, tmp_path: Path) -> None:
    folder = copied(straight, tmp_path)
    for step in (8, 12):
        shutil.rmtree(folder / "smooth" / "checkpoints" / str(step))
    arrays = folder / "hard" / "checkpoints" / "12"
    before = {p: p.stat().st_mtime_ns for p in arrays.rglob("*")}
    assert fit_population(again(prepared, folder)) == [12, 12, 12]
    assert {p: p.stat().st_mtime_ns for p in arrays.rglob("*")} == before
    assert_all_same(folder, straight)


def test_a_damaged_checkpoint_of_one_takes_all_back(
    prepared, straight: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = copied(straight, tmp_path)
    for name in NAMES:
        shutil.rmtree(folder / name / "checkpoints" / "12")
    arrays = [p for p in (folder / "hard/checkpoints/8/state").rglob("*") if p.is_file()]
    largest = max(arrays, key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    assert fit_population(again(prepared, folder)) == [12, 12, 12]
    assert "checkpoint 8 is damaged" in caplog.text
    shutil.rmtree(folder / "hard" / "checkpoints" / "damaged-8")
    assert_all_same(folder, straight)


def test_fit_alone_continues_a_member(prepared, straight: Path, tmp_path: Path) -> None:
    m = members_of(prepared, tmp_path)[1]
    shutil.copytree(straight / "smooth", m.run_dir)
    shutil.rmtree(m.run_dir / "checkpoints" / "12")
    assert fit(m.config, m.data, m.run_dir, m.validate) == 12
    assert steps_logged(m.run_dir) == list(range(1, 13))
    errors = leaf_errors(
        load_params(m.run_dir, "last")[0], load_params(straight / "smooth", "last")[0]
    )
    assert max(errors.values()) <= 1e-5


def nan_for(run: int, first: int, until: int = 10**9):
    plain = population._Group.smoothing

    def smoothing(self, member: int, step: int) -> float:
        spoilt = member == run and first <= step + 1 < until
        return float("nan") if spoilt else plain(self, member, step)

    return smoothing


def test_one_diverges_and_the_others_do_not_notice(
    prepared, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(population._Group, "smoothing", nan_for(1, first=6))
    members = members_of(prepared, tmp_path, max_skipped=3, average_last=1)
    with pytest.raises(SomeDiverged, match=r"1 of 3 .*smooth: .*since step 6 \(3 steps") as caught:
        fit_population(members)
    assert caught.value.steps[0] == caught.value.steps[2] == 12
    assert list(caught.value.reasons) == [tmp_path / "smooth"]
    for name in ("hard", "other_seed"):
        assert_same_end(tmp_path / name, straight / name)
        assert (tmp_path / name / "checkpoints" / "average").exists()
    assert steps_logged(tmp_path / "smooth")[-1] <= 8
    assert not (tmp_path / "smooth" / "checkpoints" / "average").exists()
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in NAMES]
    with pytest.raises(SomeDiverged, match="smooth"):
        fit_population(members)
    assert [(tmp_path / name / "metrics.jsonl").read_bytes() for name in NAMES] == metrics


def test_steps_are_skipped_by_each_for_itself(
    prepared, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(population._Group, "smoothing", nan_for(2, first=6, until=9))
    assert fit_population(again(prepared, tmp_path)) == [12, 12, 12]
    found = [r["skipped_total"] for r in read_metrics(tmp_path / "other_seed" / "metrics.jsonl")]
    assert found == [0, 0, 0, 0, 0, 1, 2, 3, 3, 3, 3, 3]
    assert int(whole_state(tmp_path / "other_seed")[1]["updates"]) == 9
    for name in ("hard", "smooth"):
        assert_same_end(tmp_path / name, straight / name)


def test_what_cannot_train_together(prepared, tmp_path: Path) -> None:
    members = members_of(prepared, tmp_path)
    other = dataclasses.replace(members[2].config.model, width=32)
    wider = dataclasses.replace(
        members[2], config=dataclasses.replace(members[2].config, model=other)
    )
    with pytest.raises(UserError, match=r"other_seed cannot train together.*model\.width"):
        fit_population([*members[:2], wider])
    with pytest.raises(UserError, match=r"training\.patience=2"):
        fit_population(members_of(prepared, tmp_path, patience=2))
    with pytest.raises(UserError, match="same run directory"):
        fit_population([members[0], dataclasses.replace(members[1], run_dir=members[0].run_dir)])
    assert list(tmp_path.iterdir()) == []


def test_a_directory_of_another_run_stops_all_before_anything_is_written(
    prepared, straight: Path, tmp_path: Path
) -> None:
    members = members_of(prepared, tmp_path)
    members[2] = dataclasses.replace(members[2], run_dir=straight / "smooth")
    with pytest.raises(UserError, match="belongs to another configuration"):
        fit_population(members)
    assert list(tmp_path.iterdir()) == []


def test_one_member_is_fit_alone(prepared, tmp_path: Path) -> None:
    member = members_of(prepared, tmp_path, max_steps=4, patience=3)[0]
    assert fit_population([member]) == [4]
    checkpoints = Checkpoints(member.run_dir / "checkpoints")
    assert checkpoints.steps() == [4]
    checkpoints.close()


# --- other processes -----------------------------------------------------------------------------

WORKER = """
import sys
from pathlib import Path
from nmt_ls.compilation import enable_compilation_cache
enable_compilation_cache()
from test_population import again, config_in, with_training
from tiny import tiny_data
from nmt_ls.training.population import fit_population
config = config_in(Path(sys.argv[1]))
data = tiny_data(config)
config = with_training(config, checkpoint_every=2, keep_last=2)
fit_population(again((config, data), Path(sys.argv[2])))
"""


def test_killed_at_a_random_moment(straight: Path, tmp_path: Path) -> None:
    """Checkpoints at every other step, so that the kill meets members with different ones."""
    runs = tmp_path / "runs"
    seed = killed_and_run_again(WORKER, tmp_path, range(2, 10))
    for name in NAMES:
        assert steps_logged(runs / name) == list(range(1, 13)), seed
        assert_same_end(runs / name, straight / name)
