"""The loop: an interrupted run is the unbroken one, to the bit."""

import contextlib
import dataclasses
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from killed import start as start_worker
from tiny import tiny_config, tiny_data, with_training

from nmt_ls.config import TrainingConfig
from nmt_ls.errors import UserError
from nmt_ls.training import trainer
from nmt_ls.training.checkpoints import Checkpoints
from nmt_ls.training.metrics import read_metrics
from nmt_ls.training.progress import Progress
from nmt_ls.training.runs import load_params
from nmt_ls.training.trainer import Diverged, Interrupted, fit


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory):
    # Dropout and the moving average are on: all state there is has to survive.
    config = tiny_config(tmp_path_factory.mktemp("data"), ema_decay=0.9)
    return config, tiny_data(config)


def whole_state(run: Path) -> tuple[int, dict, dict]:
    """(step, all arrays on the device, host values) of the last checkpoint."""
    checkpoints = Checkpoints(run / "checkpoints")
    step = checkpoints.steps()[-1]
    state, host = checkpoints._read(step, None)
    checkpoints.close()
    return step, state, host


def assert_same_end(run: Path, other: Path) -> None:
    a, b = whole_state(run), whole_state(other)
    assert a[0] == b[0]
    assert a[2]["tokens"] == b[2]["tokens"]
    leaves = [jax.tree_util.tree_leaves_with_path(x[1]) for x in (a, b)]
    assert [p for p, _ in leaves[0]] == [p for p, _ in leaves[1]]
    for (path, x), (_, y) in zip(*leaves, strict=True):
        assert x.tobytes() == y.tobytes(), path


def steps_logged(run: Path) -> list[int]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines]


@pytest.fixture(scope="module")
def straight(prepared, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("straight") / "run"
    assert fit(*prepared, run) == 12
    return run


def test_the_record_of_a_run(prepared, straight: Path) -> None:
    records = read_metrics(straight / "metrics.jsonl")
    assert [r["step"] for r in records] == list(range(1, 13))
    for record in records:
        assert record["compilations"] <= 8
        assert record["label_smoothing"] == pytest.approx(0.1)
        assert record["perplexity"] == pytest.approx(np.exp(record["nll"]))
        assert 0 < record["real_share"] <= 1
        assert record["target_positions"] <= prepared[0].training.batch_tokens
    total = records[-1]["target_tokens_total"]
    assert sum(r["target_tokens"] for r in records) == total
    assert records[-1]["compilations"] == 2
    assert 0 < records[-1]["epoch"] < 3
    assert [r["learning_rate"] for r in records[:3]] == pytest.approx([5e-4, 1e-3, 1.5e-3])
    checkpoints = Checkpoints(straight / "checkpoints")
    assert checkpoints.steps() == [4, 8, 12]
    checkpoints.close()


def test_a_finished_run_is_left_alone(prepared, straight: Path) -> None:
    before = (straight / "metrics.jsonl").read_bytes()
    assert fit(*prepared, straight) == 12
    assert (straight / "metrics.jsonl").read_bytes() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_and_continued(prepared, straight: Path, tmp_path: Path, number: int) -> None:
    config, data = prepared
    run = tmp_path / "run"
    seen = []

    def validate(params: dict, step: int) -> dict[str, float]:
        seen.append(step)
        if step == 5:
            os.kill(os.getpid(), number)
        return {"perplexity": 1.0 + step}

    before = signal.getsignal(number)
    with pytest.raises(Interrupted) as caught:
        fit(with_training(config, validate_every=5), data, run, validate)
    assert caught.value.signal_number == number
    assert signal.getsignal(number) is before
    assert whole_state(run)[0] == 5
    assert steps_logged(run) == [1, 2, 3, 4, 5]
    assert fit(config, data, run) == 12
    assert seen == [5]
    assert steps_logged(run) == list(range(1, 13))
    assert_same_end(run, straight)


def test_a_signal_while_the_last_checkpoint_is_written(
    prepared, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save

    def interrupted(self: Checkpoints, step: int, *rest: Any) -> None:
        save(self, step, *rest)
        if step == 12:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Checkpoints, "save", interrupted)
    run = tmp_path / "run"
    with pytest.raises(Interrupted):
        fit(*prepared, run)
    assert_same_end(run, straight)
    assert fit(*prepared, run) == 12


def test_a_damaged_checkpoint_costs_steps_and_nothing_else(
    prepared, straight: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    config, data = prepared
    run = tmp_path / "run"
    fit(config, data, run)
    arrays = [p for p in (run / "checkpoints" / "12" / "state").rglob("*") if p.is_file()]
    largest = max(arrays, key=lambda p: p.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    assert fit(config, data, run) == 12
    assert "checkpoint 12 is damaged" in caplog.text
    assert steps_logged(run) == list(range(1, 13))
    assert_same_end(run, straight)


def test_more_steps(prepared, straight: Path, tmp_path: Path) -> None:
    """inverse_sqrt does not depend on the end: 6 steps, then 6 more, are 12."""
    config, data = prepared
    run = tmp_path / "run"
    assert fit(with_training(config, max_steps=6), data, run) == 6
    assert fit(config, data, run) == 12
    assert_same_end(run, straight)


def test_another_learning_rate_is_refused(prepared, straight: Path) -> None:
    config, data = prepared
    before = (straight / "metrics.jsonl").read_bytes()
    with pytest.raises(UserError, match=r"training\.learning_rate is 0\.003 there and 0\.5 here"):
        fit(with_training(config, learning_rate=0.5), data, straight)
    assert (straight / "metrics.jsonl").read_bytes() == before


def test_the_validated_parameters_are_the_moving_average(
    prepared, straight: Path, tmp_path: Path
) -> None:
    config, data = prepared
    given = {}

    def validate(params: dict, step: int) -> dict[str, float]:
        given[step] = params
        return {"perplexity": 2.0, "bleu": 30.0}

    fit(with_training(config, validate_every=12), data, tmp_path / "run", validate)
    assert list(given) == [12]
    average = load_params(straight, "12")[0]
    for name, value in given[12].items():
        np.testing.assert_array_equal(value, average[name])
    raw = whole_state(straight)[1]["params"]
    assert any((raw[name] != average[name]).any() for name in raw)
    last = read_metrics(tmp_path / "run" / "metrics.jsonl")[-1]
    assert (last["validation_perplexity"], last["validation_bleu"]) == (2.0, 30.0)


def test_which_checkpoints_are_kept(prepared, tmp_path: Path) -> None:
    config, data = prepared
    config = with_training(
        config, validate_every=2, checkpoint_every=2, keep_last=2, keep_best=1, average_last=2
    )
    values = {2: 9.0, 4: 3.0, 6: 5.0, 8: 4.0, 10: 6.0, 12: 7.0}
    fit(config, data, tmp_path, lambda params, step: {"perplexity": values[step]})
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.steps() == [4, 10, 12]
    ten, twelve = checkpoints.params(10), checkpoints.params(12)
    checkpoints.close()
    assert load_params(tmp_path, "best")[1] == "4"
    params, name = load_params(tmp_path)
    assert name == "average of 10, 12"
    for key, value in params.items():
        mean = (ten[key].astype(np.float64) + twelve[key]) / 2
        np.testing.assert_array_equal(value, mean.astype(np.float32))


def test_early_stopping(prepared, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config, data = prepared
    config = with_training(config, validate_every=1, patience=3)
    seen = []

    def validate(params: dict, step: int) -> dict[str, float]:
        seen.append(step)
        return {"perplexity": {1: 9.0, 2: 5.0}.get(step, 5.0)}

    assert fit(config, data, tmp_path, validate) == 5
    assert seen == [1, 2, 3, 4, 5]
    assert "no better perplexity in 3 validations" in caplog.text
    assert load_params(tmp_path, "best")[1] == "2"
    # Stopped is stopped.
    assert fit(config, data, tmp_path, validate) == 5
    assert seen == [1, 2, 3, 4, 5]
    # Until there is more patience, or none that could run out.
    assert fit(with_training(config, patience=4), data, tmp_path, validate) == 6
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as checkpoints:
        assert Progress(**checkpoints.host(6)).stopped
    assert fit(with_training(config, patience=0), data, tmp_path, validate) == 12
    assert seen == list(range(1, 13))
    with contextlib.closing(Checkpoints(tmp_path / "checkpoints")) as checkpoints:
        assert not Progress(**checkpoints.host(12)).stopped


def test_values_of_another_metric_or_text_are_not_compared(prepared, tmp_path: Path) -> None:
    config, data = prepared
    config = with_training(config, validate_every=2, checkpoint_every=2, keep_last=9, max_steps=4)
    perplexities, bleus = {2: 300.0, 4: 8.0}, {6: 25.0, 8: 31.0, 10: 31.0}
    fit(config, data, tmp_path, lambda params, step: {"perplexity": perplexities[step]})
    # Nothing is left to train: the best is that of what was measured.
    bleu = with_training(config, best_metric="bleu", validate_bleu=True)
    fit(bleu, data, tmp_path, lambda params, step: {"bleu": bleus[step]})
    assert load_params(tmp_path, "best")[1] == "4"
    assert known(tmp_path, 4) == {"2": 300.0, "4": 8.0}
    fit(
        with_training(bleu, max_steps=8), data, tmp_path, lambda params, step: {"bleu": bleus[step]}
    )
    assert known(tmp_path, 8) == {"6": 25.0, "8": 31.0}
    assert load_params(tmp_path, "best")[1] == "8"
    other = dataclasses.replace(
        data, validation=dataclasses.replace(data.validation, fingerprint="other")
    )
    more = with_training(bleu, max_steps=10)
    fit(more, other, tmp_path, lambda params, step: {"bleu": bleus[step]})
    assert known(tmp_path, 10) == {"10": 31.0}


def known(run: Path, step: int) -> dict[str, float]:
    with contextlib.closing(Checkpoints(run / "checkpoints")) as checkpoints:
        return Progress(**checkpoints.host(step)).validated


def test_progress_of_an_older_checkpoint_is_kept() -> None:
    older = {"step": 4, "best": 8.0, "validated": {"2": 300.0, "4": 8.0}}
    progress = Progress(**older)
    progress.will_measure("perplexity", "text")
    assert (progress.best, progress.validated) == (8.0, older["validated"])
    assert progress.best_steps([2, 4], TrainingConfig()) == [4, 2]


def test_patience_survives_an_interruption(prepared, tmp_path: Path) -> None:
    config, data = prepared
    config = with_training(config, validate_every=1, patience=4)

    def validate(params: dict, step: int) -> dict[str, float]:
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return {"perplexity": 5.0}

    with pytest.raises(Interrupted):
        fit(config, data, tmp_path, validate)
    assert fit(config, data, tmp_path, lambda params, step: {"perplexity": 5.0}) == 5


def nan_from(step: int, until: int = 10**9):
    def smoothing(self, at: int) -> float:
        return float("nan") if step <= at + 1 < until else 0.1

    return smoothing


def test_diverged(prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, data = prepared
    # Three steps without a finite gradient go by; from step 6 on there is no other.
    monkeypatch.setattr(trainer._Trainer, "smoothing", nan_from(6))
    with pytest.raises(Diverged, match=r"since step 6 \(5 steps in a row\)"):
        fit(config, data, tmp_path)
    steps = steps_logged(tmp_path)
    assert steps == list(range(1, len(steps) + 1))


def test_what_does_not_fit_is_the_batch_of_a_step(
    prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data = prepared

    def exhausted(*_: object) -> None:
        raise RuntimeError("RESOURCE_EXHAUSTED: …")

    with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
        fit(with_training(config, validate_every=1), data, tmp_path / "validation", exhausted)
    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", exhausted)  # say, Disk quota exceeded
        with pytest.raises(RuntimeError, match="RESOURCE_EXHAUSTED"):
            fit(with_training(config, checkpoint_every=1), data, tmp_path / "checkpoint")
    monkeypatch.setattr(trainer._Trainer, "dispatch", exhausted)
    with pytest.raises(UserError, match=r"batch_tokens=48 does not fit.*; lower it"):
        fit(config, data, tmp_path / "step")


def test_a_few_skipped_steps_are_counted(
    prepared, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data = prepared
    monkeypatch.setattr(trainer._Trainer, "smoothing", nan_from(6, until=9))
    assert fit(with_training(config, log_every=2), data, tmp_path) == 12
    records = read_metrics(tmp_path / "metrics.jsonl")
    assert [r["skipped_total"] for r in records] == [0, 0, 1, 3, 3, 3]
    # Means are of the steps that were taken; of the fourth record's none was.
    finite = [None not in (r["loss"], r["gradient_norm"]) for r in records]
    assert finite == [True, True, True, False, True, True]
    assert records[2]["target_tokens"] > 0
    _, state, host = whole_state(tmp_path)
    assert (int(state["updates"]), int(state["skipped_total"]), host["skipped"]) == (9, 3, 3)


def test_a_start_from_other_parameters(prepared, straight: Path, tmp_path: Path) -> None:
    config, data = prepared
    start = load_params(straight, "12")[0]
    given = {}

    def validate(params: dict, step: int) -> dict[str, float]:
        given.update(params)
        os.kill(os.getpid(), signal.SIGTERM)
        return {"perplexity": 1.0}

    with pytest.raises(Interrupted):
        fit(with_training(config, validate_every=1), data, tmp_path, validate, initial_params=start)
    # One update of at most 5e-4 (and decay 0.9) away from where it began.
    for name, value in given.items():
        assert np.abs(value - start[name]).max() <= 5e-4 * 0.1 * 1.01, name


# --- other processes -----------------------------------------------------------------------------

WORKER = """
import sys
from pathlib import Path
from nmt_ls.compilation import CompilationCounter, enable_compilation_cache
enable_compilation_cache()
counter = CompilationCounter()
from tiny import tiny_config, tiny_data
from nmt_ls.training.trainer import fit
folder, run = Path(sys.argv[1]), Path(sys.argv[2])
config = tiny_config(folder, shapes=1, max_steps=24, checkpoint_every=2, keep_last=2)
fit(config, tiny_data(config), run)
print("misses", counter.misses)
"""


def start(folder: Path, run: Path) -> subprocess.Popen:
    return start_worker(WORKER, folder, run, NMT_LS_CACHE=str(folder / "cache"))


def misses_of(process: subprocess.Popen) -> int:
    out, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors[-4000:]
    return int(out.split()[-1])


def lines_of(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_killed_at_random_moments_and_compiled_once(tmp_path: Path) -> None:
    """SIGKILL loses nothing, and a second process compiles nothing (20 moments: scripts/)."""
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    assert misses_of(start(tmp_path, unbroken)) > 0
    seed = time.time_ns()
    generator = random.Random(seed)
    for moment in (generator.randrange(1, 8), generator.randrange(11, 18)):
        process = start(tmp_path, run)
        try:
            while lines_of(run / "metrics.jsonl") < moment and process.poll() is None:
                time.sleep(0.001)
            time.sleep(generator.random() * 0.1)
        finally:
            process.kill()
            process.wait()
        assert process.returncode == -signal.SIGKILL, f"ended before it was killed (seed {seed})"
    assert misses_of(start(tmp_path, run)) == 0
    assert steps_logged(run) == list(range(1, 25)), seed
    assert_same_end(run, unbroken)
    fresh = read_metrics(unbroken / "metrics.jsonl")[-1]["compilation_cache_misses"]
    again = read_metrics(run / "metrics.jsonl")[-1]["compilation_cache_misses"]
    assert (fresh > 0, again) == (True, 0)
