"""Several runs of a sweep at a time, each in a process with its share of the processors.

A small model gains little from a second processor; two runs side by side use both.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from nmt_ls.messages import tell
from nmt_ls.training.interruption import Interrupted

_INTERRUPTED = tuple(
    status for number in (signal.SIGTERM, signal.SIGINT) for status in (-number, 128 + number)
)
"""What a process ends with that was asked to stop, by a signal or after it has caught one. One that
was killed otherwise, for want of memory say, has failed by itself."""


class JobFailed(Exception):
    """A process ended badly; why has been said."""

    def __init__(self, name: str, status: int):
        super().__init__(f"{name} ended with status {status}")
        self.status = status
        self.interrupted = status in _INTERRUPTED


def run_jobs(
    names: Sequence[str],
    command: Callable[[str], Sequence[str]],
    jobs: int,
    ended_well: Callable[[str], None] | None = None,
) -> None:
    """Run `command(name)` for each name, `jobs` at a time; their lines go to stderr with the name.

    Each process computes with its share of the processors. When one fails, the others are done
    all the same. When SIGTERM or Ctrl-C comes, to us or to one of them, they are asked to stop,
    which lets them write a checkpoint.

    Args:
      names: of the jobs.
      command: of each, by its name.
      jobs: how many at a time.
      ended_well: called with a name as its job ends.

    Raises:
      JobFailed: the first that failed.
      Interrupted: after SIGTERM.
    """
    threads = max(1, (os.cpu_count() or 1) // jobs)
    waiting, running = list(names), dict[str, tuple[subprocess.Popen, threading.Thread]]()
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    failed: list[JobFailed] = []
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                name = waiting.pop(0)
                process = _start(command(name), threads)
                reader = threading.Thread(target=_relay, args=(name, process, ended), daemon=True)
                reader.start()
                running[name] = (process, reader)
            name = ended.get()
            process, _ = running.pop(name)
            if process.returncode:
                failed.append(JobFailed(name, process.returncode))
                if failed[-1].interrupted:
                    break
                if (number := -process.returncode) > 0:  # what ends so cannot say why
                    hint = ", for want of memory perhaps: fewer --jobs need less"
                    tell(
                        f"nmt-ls: {name} was ended by signal {number} ({signal.strsignal(number)})"
                        f"{hint if number == signal.SIGKILL else ''}; the same command goes on"
                    )
            elif ended_well is not None:
                ended_well(name)
    finally:
        for process, _ in running.values():
            process.terminate()
        for process, reader in running.values():
            process.wait()
            reader.join()
        signal.signal(signal.SIGTERM, before)
    if failed:
        raise failed[-1] if failed[-1].interrupted else failed[0]


def _start(command: Sequence[str], threads: int) -> subprocess.Popen:
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
        # XLA takes the number of its CPU threads from here. Which processor they run on is left
        # to the system, so that none idles while there is work.
        env={**os.environ, "NPROC": str(threads)},
    )


def _relay(name: str, process: subprocess.Popen, ended: queue.SimpleQueue[str]) -> None:
    assert process.stderr is not None
    try:
        with process.stderr:
            for line in process.stderr:
                # Nobody may be listening any more (`… 2>&1 | head`), but the job must go on: it
                # would stand still at a pipe that is not read.
                with contextlib.suppress(OSError, ValueError):
                    print(f"[{name}] {line}", end="", file=sys.stderr, flush=True)
    finally:
        process.wait()
        ended.put(name)


def _interrupt(number: int, _: object) -> None:
    raise Interrupted(number)
