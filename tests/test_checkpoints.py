"""Checkpoints: what is there is whole; what is damaged is found out."""

import contextlib
import errno
import logging
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from nmt_ls.errors import UserError
from nmt_ls.training.checkpoints import Checkpoints, load_average, mean_of_params, save_average
from nmt_ls.training.step import TrainState


def state_of(step: int, ema: bool = False) -> dict:
    """A state as the trainer saves it: arrays of several types, NaN and −0 among them."""
    generator = np.random.default_rng(step)
    params = {
        "a.kernel": jnp.asarray(generator.normal(size=(20, 30)), jnp.float32),
        "b.bias": jnp.asarray([step, -0.0, np.nan, np.inf], jnp.float32),
    }
    moments = ({"mu": jax.tree.map(lambda x: x * 2, params)}, {"count": jnp.asarray(step)})
    state = {"params": params, "optimizer": moments, "step": jnp.asarray(step, jnp.int32)}
    return {**state, "ema": jax.tree.map(lambda x: x + 1, params)} if ema else state


def assert_same(a, b) -> None:
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


def saved(directory: Path, *steps: int, ema: bool = False) -> Path:
    checkpoints = Checkpoints(directory)
    for step in steps:
        checkpoints.save(step, state_of(step, ema), {"step": step, "best": step / 3})
        checkpoints.wait()
    checkpoints.close()
    return directory


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("checkpoints"), 4, 8, 12)


def largest_file(folder: Path) -> Path:
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def test_there_and_back_to_the_bit(three: Path) -> None:
    checkpoints = Checkpoints(three)
    assert checkpoints.steps() == [4, 8, 12]
    step, state, host = checkpoints.restore(state_of(0))
    assert (step, host) == (12, {"step": 12, "best": 4.0})
    assert_same(state, state_of(12))
    assert checkpoints.host(8) == {"step": 8, "best": 8 / 3}
    for name, value in checkpoints.params(4).items():
        np.testing.assert_array_equal(value, state_of(4)["params"][name])
    checkpoints.close()


def test_host_values_of_a_damaged_one(tmp_path: Path) -> None:
    directory = saved(tmp_path, 4)
    for file in (directory / "4" / "host").iterdir():
        file.write_bytes(b"")
    refused = pytest.raises(UserError, match=r"checkpoint .*/4 is damaged; `nmt-ls train` goes on")
    with contextlib.closing(Checkpoints(directory)) as checkpoints, refused:
        checkpoints.host(4)


def test_nothing_to_restore(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    assert checkpoints.steps() == []
    assert checkpoints.restore(state_of(0)) is None
    checkpoints.close()


def test_the_moving_average_is_what_is_evaluated(tmp_path: Path) -> None:
    checkpoints = Checkpoints(saved(tmp_path, 3, ema=True))
    found = checkpoints.params(3)
    assert_same(found["a.kernel"], state_of(3, True)["ema"]["a.kernel"])
    checkpoints.close()


def flip(path: Path) -> None:
    """One bit in the middle of a file."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 16
    path.write_bytes(content)


DAMAGES = {
    "a flipped bit": lambda folder: flip(largest_file(folder)),
    "a file cut short": lambda folder: largest_file(folder).write_bytes(
        largest_file(folder).read_bytes()[: largest_file(folder).stat().st_size // 2]
    ),
    "an empty file": lambda folder: largest_file(folder).write_bytes(b""),
    "a file gone": lambda folder: largest_file(folder).unlink(),
    "host values gone": lambda folder: shutil.rmtree(folder / "host"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_ones_are_left_aside(
    three: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    directory = tmp_path / "checkpoints"
    shutil.copytree(three, directory)
    DAMAGES[damage](directory / "12")
    checkpoints = Checkpoints(directory)
    with pytest.raises(UserError, match="--checkpoint"):
        checkpoints.params(12)
    with caplog.at_level(logging.WARNING, "nmt_ls"):
        step, state, host = checkpoints.restore(state_of(0))
    assert (step, host["step"]) == (8, 8)
    assert_same(state, state_of(8))
    assert "checkpoint 12 is damaged" in caplog.text
    assert checkpoints.steps() == [4, 8]
    # Training comes past the same step again.
    checkpoints.save(12, state_of(13), {"step": 12})
    checkpoints.close()
    again = Checkpoints(directory)
    step, state, _ = again.restore(state_of(0))
    assert step == 12
    assert_same(state, state_of(13))
    again.close()


def test_all_damaged(three: Path, tmp_path: Path) -> None:
    """Training must not begin anew by itself, nor empty metrics.jsonl."""
    directory = tmp_path / "checkpoints"
    shutil.copytree(three, directory)
    for step in (4, 8, 12):
        flip(largest_file(directory / str(step)))
    checkpoints = Checkpoints(directory)
    with pytest.raises(UserError, match=r"there are 4, 8, 12; .*\n.*nothing was changed"):
        checkpoints.restore(state_of(0))
    assert checkpoints.steps() == [4, 8, 12]
    shutil.rmtree(directory / "8")
    shutil.copytree(three / "8", directory / "8")
    assert checkpoints.restore(state_of(0))[0] == 8
    assert checkpoints.steps() == [4, 8], "older than the whole one: not read"
    checkpoints.close()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EIO, "Input/output error"),
        ValueError("FAILED_PRECONDITION: Failed to open: Too many open files"),
        MemoryError(),
    ],
)
def test_what_the_system_cannot_read_is_not_damaged(
    three: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def read(*_: object) -> None:
        raise error

    checkpoints = Checkpoints(three)
    monkeypatch.setattr(checkpoints, "_read", read)
    for call in (checkpoints.restore, lambda like: checkpoints.params(12)):
        with pytest.raises(MemoryError if isinstance(error, MemoryError) else OSError):
            call(state_of(0))
    assert checkpoints.steps() == [4, 8, 12]
    checkpoints.close()


def test_nothing_half_written_is_seen(tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    writer = Checkpoints(directory)
    reader = Checkpoints(directory)
    for step in range(1, 6):
        writer.save(step, state_of(step), {"step": step})
        for _ in range(10):
            for seen in reader.steps():
                state, host = reader._read(seen, None)
                assert host["step"] == seen
                assert len(state["params"]) == 2
    writer.close()
    # What a kill leaves behind of an unfinished one.
    torn = directory / "6.orbax-checkpoint-tmp-1234"
    shutil.copytree(directory / "5", torn)
    shutil.rmtree(torn / "host")
    found = Checkpoints(directory)
    assert found.steps() == [1, 2, 3, 4, 5]
    assert found.restore(state_of(0))[0] == 5
    found.save(6, state_of(6), {"step": 6})
    found.wait()
    assert found.restore(state_of(0))[0] == 6
    found.close()
    reader.close()


def test_saving_copies(tmp_path: Path) -> None:
    """The next step donates the buffers while the writer is still at work."""
    checkpoints = Checkpoints(tmp_path)
    state = state_of(1)
    checkpoints.save(1, state, {})
    for leaf in jax.tree.leaves(state):
        leaf.delete()
    checkpoints.wait()
    assert_same(checkpoints.restore(state_of(0))[1], state_of(1))
    checkpoints.close()


def test_deleting_some(three: Path, tmp_path: Path) -> None:
    directory = tmp_path / "checkpoints"
    shutil.copytree(three, directory)
    checkpoints = Checkpoints(directory)
    checkpoints.delete({8})
    assert checkpoints.steps() == [4, 12]
    checkpoints.close()
    assert sorted(p.name for p in directory.iterdir() if p.is_dir()) == ["12", "4"]


def test_a_tuple_state_goes_by_its_fields(tmp_path: Path) -> None:
    one = jnp.zeros((), jnp.int32)
    state = TrainState({"w": jnp.ones(3)}, (jnp.ones(2), {}), {}, one, one, one, one)._asdict()
    del state["ema"]
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, state, {})
    checkpoints.wait()
    assert_same(checkpoints.restore(state)[1], jax.tree.map(np.asarray, state))
    checkpoints.close()


def test_the_mean_is_summed_in_float64(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step, value in ((1, 2.0**25), (2, 1.0), (3, 1.0), (4, -(2.0**25))):
        checkpoints.save(step, {"params": {"w": jnp.asarray([value, step])}}, {})
        checkpoints.wait()
    mean = mean_of_params(checkpoints, [1, 2, 3, 4])
    checkpoints.close()
    np.testing.assert_array_equal(mean["w"], np.array([0.5, 2.5], np.float32))
    assert mean["w"].dtype == np.float32
    naive = sum(np.float32(v) for v in (2.0**25, 1.0, 1.0, -(2.0**25))) / np.float32(4)
    assert naive == 0


def test_the_average(tmp_path: Path) -> None:
    for value in (1.0, 2.0):  # the second replaces the first
        params = {"a.b": np.full(3, value, np.float32)}
        save_average(tmp_path, params, [4, 8])
        found, steps = load_average(tmp_path)
        assert steps == [4, 8]
        np.testing.assert_array_equal(found["a.b"], params["a.b"])
    assert [p.name for p in tmp_path.iterdir()] == ["average"]
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [], "never resumed from"
    assert checkpoints.restore(state_of(0)) is None
    checkpoints.close()
    for path in (tmp_path / "average" / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(UserError, match="nmt-ls average"):
        load_average(tmp_path)
