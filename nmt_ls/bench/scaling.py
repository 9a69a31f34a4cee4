"""The training step on 1, 8, 64 devices of a CPU: the same numbers, and how much is sent."""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from tabulate import tabulate

from nmt_ls.bench.machine import about, describe_machine

DIFFERENCE_WANTED = 1e-5
"""‖a − b‖ / ‖b‖ of each parameter after the steps, b being that of the first number of devices."""

_DEVICE_COUNT = re.compile(r"--xla_force_host_platform_device_count=\d+")


def bench_scaling(
    *,
    devices: Sequence[int] = (1, 8, 64),
    layers: int = 2,
    width: int = 128,
    vocab_size: int = 2000,
    rows: int = 64,
    steps: int = 3,
) -> dict[str, Any]:
    """Compiles and runs the training step on virtual CPU devices, each number in its own process.

    They share the machine's cores, so that seconds say nothing of speed on real devices: what is
    measured is that the numbers agree and what the devices send each other.

    Args:
      devices: how many; the others are compared with the first.
      layers, width, vocab_size: of the model; layers of the encoder, and of the decoder.
      rows: pairs of up to 32 tokens in each batch, over all devices; divides by each of `devices`.
      steps: taken, each with another batch.

    Returns:
      machine, versions, settings; parameters, gradient_bytes; difference_wanted; `runs`: for each
      number of devices compile_seconds, step_seconds, losses (nats per token), all_reduces, arrays,
      bytes (summed by one step's all-reduces), others (other collectives), difference (the largest
      ‖a − b‖ / ‖b‖ of a parameter), moved (the smallest ‖b − before‖ / ‖before‖) and
      difference_of_moved (the largest ‖a − b‖ / ‖b − before‖).

    Raises:
      ValueError: numbers under 1; rows that do not divide.
      RuntimeError: a process failed.
    """
    settings = {
        "devices": list(devices), "layers": layers, "width": width, "vocab_size": vocab_size,
        "rows": rows, "steps": steps,
    }  # fmt: skip
    for name in ("layers", "width", "rows", "steps"):
        if settings[name] < 1:  # type: ignore[operator]
            raise ValueError(f"{name}={settings[name]}: at least 1")
    if vocab_size < 8:
        raise ValueError(f"vocab_size={vocab_size}: at least 8")
    if width % 4:
        raise ValueError(f"width={width}: a multiple of 4, the number of heads")
    for count in devices:
        if count < 1 or rows % count:
            raise ValueError(f"devices={count}: at least 1, and rows={rows} must divide by it")
    result = about(settings, ("jax", "jaxlib", "optax"))
    runs, params = [], []
    for count in devices:
        found, arrays = _run(count, settings)
        runs.append(found)
        params.append(arrays)
        for name in ("parameters", "gradient_bytes"):
            result[name] = found.pop(name)
        found.update(_compared(arrays, params[0]))
    return {**result, "difference_wanted": DIFFERENCE_WANTED, "runs": runs}


def _run(count: int, settings: dict[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with tempfile.TemporaryDirectory(prefix="nmt_ls_bench_") as name:
        folder = Path(name)
        (folder / "settings.json").write_text(json.dumps(settings))
        flags = _DEVICE_COUNT.sub("", os.environ.get("XLA_FLAGS", ""))
        flags += f" --xla_force_host_platform_device_count={count}"
        done = subprocess.run(
            [sys.executable, "-m", "nmt_ls.bench.scale.worker", str(folder)],
            env={**os.environ, "XLA_FLAGS": flags.strip(), "JAX_PLATFORMS": "cpu"},
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            told = "\n".join(done.stderr.splitlines()[-5:])
            raise RuntimeError(f"{count} devices: status {done.returncode}\n{told}")
        with np.load(folder / "params.npz") as file:
            arrays = dict(file)
        return json.loads((folder / "found.json").read_text()), arrays


def _compared(run: dict[str, np.ndarray], first: dict[str, np.ndarray]) -> dict[str, float]:
    names = [name.removeprefix("after/") for name in first if name.startswith("after/")]
    differences, moves, shares = [], [], []
    for name in names:
        before, b = (first[f"{when}/{name}"].astype(np.float64) for when in ("before", "after"))
        distance = np.linalg.norm(run[f"after/{name}"] - b)
        move = np.linalg.norm(b - before)
        differences.append(distance / np.linalg.norm(b))
        moves.append(move / np.linalg.norm(before))
        shares.append(distance / move)
    return {
        "difference": float(max(differences)),
        "moved": float(min(moves)),
        "difference_of_moved": float(max(shares)),
    }


def describe(result: dict[str, Any]) -> str:
    """The result of `bench_scaling` as text."""
    s, gradient = result["settings"], result["gradient_bytes"]
    rows = [
        [
            str(run["devices"]),
            str(run["all_reduces"]),
            f"{run['bytes']:,}",
            f"{run['bytes'] / gradient:.6f}",
            str(run["others"]),
            f"{run['difference']:.1e}",
            f"{run['difference_of_moved']:.1e}",
            f"{run['compile_seconds']:.1f}",
            f"{median(run['step_seconds']):.2f}",
        ]
        for run in result["runs"]
    ]
    headers = [
        "devices", "all-reduces", "bytes", "/ gradient", "other collectives", "difference",
        "of the move", "compile (s)", "step (s)",
    ]  # fmt: skip
    table = tabulate(rows, headers, disable_numparse=True, colalign=["right"] * len(headers))
    worst = max(run["difference"] for run in result["runs"])
    wanted = result["difference_wanted"]
    moved = min(run["moved"] for run in result["runs"])
    return (
        f"{s['steps']} training steps on virtual devices of one CPU: {s['layers']} + {s['layers']} "
        f"layers, width {s['width']}, V = {s['vocab_size']:,};\n{result['parameters']:,} "
        f"parameters, gradient {gradient:,} bytes; {s['rows']} rows over all devices\n\n{table}\n\n"
        f"largest difference of a parameter ‖a − b‖ / ‖b‖ from {s['devices'][0]} device(s): "
        f"{worst:.1e}, asked for ≤ {wanted:g}: {'yes' if worst <= wanted else 'NO'};\n"
        f"each parameter has moved by {moved:.1e} or more of its norm\n\n{describe_machine(result)}"
    )
