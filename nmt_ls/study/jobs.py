"""Several runs of a sweep at a time, each in a process and on processors of its own.

Small models gain little from a second processor: two runs side by side take hardly longer than one
after the other would alone.
"""

import contextlib
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from nmt_ls.training.interruption import Interrupted


class JobFailed(Exception):
    """A process ended badly; it has said why."""

    def __init__(self, name: str, status: int):
        super().__init__(f"{name} ended with status {status}")
        self.status = status


def run_jobs(names: Sequence[str], command: Callable[[str], Sequence[str]], jobs: int) -> None:
    """Run `command(name)` for each name, `jobs` at a time; their lines go to stderr with the name.

    Each process gets its share of this one's processors, where the system lets one choose. When
    one fails, or a signal comes, the others are asked to stop, which lets them write a checkpoint.

    Raises:
      JobFailed: the first that failed.
      Interrupted: after SIGTERM.
    """
    shares = _shares(jobs)
    waiting, running = list(names), dict[str, tuple[subprocess.Popen, threading.Thread, int]]()
    free = list(range(jobs))
    ended: queue.SimpleQueue[str] = queue.SimpleQueue()
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        while waiting or running:
            while waiting and free:
                name, slot = waiting.pop(0), free.pop(0)
                process = _start(command(name), shares[slot])
                reader = threading.Thread(target=_relay, args=(name, process, ended), daemon=True)
                reader.start()
                running[name] = (process, reader, slot)
            name = ended.get()
            process, _, slot = running.pop(name)
            free.append(slot)
            if process.returncode:
                raise JobFailed(name, process.returncode)
    finally:
        for process, _, _ in running.values():
            process.terminate()
        for process, reader, _ in running.values():
            process.wait()
            reader.join()
        signal.signal(signal.SIGTERM, before)


def _shares(jobs: int) -> list[set[int]]:
    if not hasattr(os, "sched_getaffinity"):
        return [set()] * jobs
    cores = sorted(os.sched_getaffinity(0))
    return [set(cores[i::jobs]) or set(cores) for i in range(jobs)]


def _start(command: Sequence[str], share: set[int]) -> subprocess.Popen:
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        errors="replace",
    )
    if share:  # long before it starts the threads that inherit it
        with contextlib.suppress(OSError):
            os.sched_setaffinity(process.pid, share)
    return process


def _relay(name: str, process: subprocess.Popen, ended: queue.SimpleQueue[str]) -> None:
    assert process.stderr is not None
    with process.stderr:
        for line in process.stderr:
            print(f"[{name}] {line}", end="", file=sys.stderr, flush=True)
    process.wait()
    ended.put(name)


def _interrupt(number: int, _: object) -> None:
    raise Interrupted(number)
