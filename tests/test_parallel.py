"""How rows lie on devices; two real processes train as one with two devices."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import QUICK
from tiny import leaf_errors, tiny_config, tiny_data

from nmt_ls.errors import UserError
from nmt_ls.parallel import AXIS, DataParallel, on_accelerator, to_host
from nmt_ls.training.runs import load_params
from nmt_ls.training.trainer import fit

TESTS = Path(__file__).parent


def test_rows_are_split_in_order() -> None:
    batch = {"ids": np.arange(24).reshape(12, 2), "lengths": np.arange(12)}
    split = DataParallel(3).split_rows(batch, parts=2)
    assert split["ids"].shape == (3, 2, 2, 2)
    assert split["lengths"].tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]]


def test_a_step_sums_over_devices_and_keeps_one_state() -> None:
    parallel = DataParallel(4)
    assert parallel.count == 4

    def fn(state, rows, factor):
        total = jax.lax.psum(factor * rows.sum(), AXIS)
        return state + total, total

    step = parallel.step(fn)
    rows = parallel.split_rows(np.arange(8.0, dtype=np.float32))
    state = parallel.replicate(np.float32(1))
    for n in (1, 2):
        state, total = step(state, rows, np.float32(2))
        assert float(to_host(total)) == 56
        assert float(to_host(state)) == 1 + 56 * n


@pytest.mark.parametrize("devices", [1, 4])
def test_replicating_copies(devices: int) -> None:
    """The step donates the state; memory that numpy owns must not be among it."""
    raw = np.zeros(4096 * 4 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    mine = raw[start : start + 4096 * 4].view(np.float32)  # aligned: XLA could take it over
    for state in ({"a": mine}, {"a": jax.device_put(mine)}):
        copy = DataParallel(devices).replicate(state)["a"]
        for shard in copy.addressable_shards:
            assert shard.data.unsafe_buffer_pointer() != mine.ctypes.data


def test_rows_of_an_evaluation() -> None:
    parallel = DataParallel(4)
    double = parallel.rows(lambda params, rows: {"out": params * rows["x"]})
    rows = {"x": np.arange(16, dtype=np.float32).reshape(8, 2)}
    found = double(np.float32(2), rows)
    assert isinstance(found["out"], np.ndarray)
    np.testing.assert_array_equal(found["out"], 2 * rows["x"])


def test_no_more_devices_than_there_are() -> None:
    assert DataParallel().count == len(jax.local_devices()) >= 8
    with pytest.raises(UserError, match="training.devices=99, but there are"):
        DataParallel(99)


WORKER = """
import os, signal, sys
from pathlib import Path
folder, port, process = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
from nmt_ls.errors import UserError
from nmt_ls.parallel import initialise_hosts, of_main_host
initialise_hosts(f"localhost:{port}", 2, process)
import jax
assert (jax.process_count(), jax.local_device_count(), jax.device_count()) == (2, 1, 2)
from tiny import tiny_config, tiny_data, with_training
from nmt_ls.training.checkpoints import steps_in
from nmt_ls.training.trainer import Interrupted, fit
config = tiny_config(
    folder, model={"dropout": 0.0}, devices=0, shapes=1, max_steps=20, average_last=2
)
data = tiny_data(config)

def validate(params, step):
    if process == 1 and step == 6:
        os.kill(os.getpid(), signal.SIGTERM)
    return {"perplexity": 1.0}

# A signal to one of them stops both.
try:
    fit(with_training(config, validate_every=3), data, folder / "run", validate)
except Interrupted as error:
    assert error.signal_number == signal.SIGTERM
if process == 0:  # which writes
    assert steps_in(folder / "run" / "checkpoints")[-1] == 6
assert fit(config, data, folder / "run") == 20

# Each sees its own files.
assert of_main_host({"nll": 0.1 + process, "bleu": -3.0}) == {"nll": 0.1, "bleu": -3.0}
for longer, run_dir, why in (
    (24, folder / ("run" if process == 0 else "elsewhere"), "would not go on from the same step"),
    (24 + process, folder / "run", "were given different settings"),
):
    try:
        fit(with_training(config, max_steps=longer), data, run_dir)
        raise AssertionError
    except UserError as error:
        assert why in str(error), error
"""


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("localhost", 0))
        return s.getsockname()[1]


def test_two_processes_are_one_with_two_devices(tmp_path: Path) -> None:
    config = tiny_config(
        tmp_path, model={"dropout": 0.0}, devices=2, shapes=1, max_steps=20, average_last=2
    )
    data = tiny_data(config)
    environment = {
        **os.environ,
        "XLA_FLAGS": f"{QUICK} --xla_force_host_platform_device_count=1",
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    }
    port = str(free_port())
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, str(tmp_path), port, str(i)],
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for i in range(2)
    ]
    try:
        fit(config, data, tmp_path / "one")
        errors = [p.communicate(timeout=240)[1] for p in processes]
    finally:
        for p in processes:
            p.kill()
    assert [p.returncode for p in processes] == [0, 0], "\n".join(errors)[-4000:]
    for checkpoint in ("last", "average"):
        two, one = (load_params(tmp_path / name, checkpoint)[0] for name in ("run", "one"))
        found = leaf_errors(two, one)
        worst = max(found, key=found.get)
        assert found[worst] <= 1e-5, (checkpoint, worst, found[worst])
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [r["step"] for r in records] == list(range(1, 21)), "one host writes"
    one_lines = (tmp_path / "one" / "metrics.jsonl").read_text().splitlines()
    for a, b in zip(records, map(json.loads, one_lines), strict=True):
        assert a["target_tokens_total"] == b["target_tokens_total"]
        assert a["loss"] == pytest.approx(b["loss"], rel=1e-5)


def test_cores_are_no_devices_beside_an_accelerator(monkeypatch) -> None:
    assert on_accelerator("cuda,cpu") and on_accelerator("tpu") and not on_accelerator("cpu")
    monkeypatch.setattr("nmt_ls.parallel.find_spec", lambda name: name == "jax_cuda12_plugin")
    monkeypatch.setattr("nmt_ls.parallel.os.path.exists", lambda path: path == "/dev/nvidiactl")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert on_accelerator("")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert not on_accelerator("")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("nmt_ls.parallel.os.path.exists", lambda path: False)
    assert not on_accelerator("")
