"""Populations in a process that is killed at a random moment, then run again to its end."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

TESTS = Path(__file__).parent


def killed_and_run_again(worker: str, folder: Path, moments: range) -> int:
    """Kill a process once a run has logged so many steps, and start it again.

    Args:
      worker: Python code; `sys.argv[1]` is `folder`, `sys.argv[2]` where its runs are, one of them
        called `smooth`.
      folder: for all that they write; the runs are in `folder / "runs"`.
      moments: of these numbers of lines in `smooth/metrics.jsonl` one is drawn.

    Returns:
      The seed that the moment was drawn with.
    """
    seed = time.time_ns()
    generator = random.Random(seed)
    moment = generator.choice(moments)
    runs = folder / "runs"
    process = start(worker, folder, runs)
    try:
        while _lines(runs / "smooth" / "metrics.jsonl") < moment and process.poll() is None:
            time.sleep(0.001)
        time.sleep(generator.random() * 0.05)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL, f"ended before it was killed (seed {seed})"
    process = start(worker, folder, runs)
    errors = process.communicate(timeout=240)[1]
    assert process.returncode == 0, errors[-4000:]
    return seed


def start(worker: str, folder: Path, runs: Path, **environment: str) -> subprocess.Popen:
    """Run Python code that may import test modules; its arguments are `folder` and `runs`."""
    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.Popen(
        [sys.executable, "-c", worker, str(folder), str(runs)],
        env={**os.environ, "PYTHONPATH": path, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _lines(path: Path) -> int:
    return path.read_text(encoding="utf-8").count("\n") if path.exists() else 0
