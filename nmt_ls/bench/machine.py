"""What is measured on, in how much memory, and how long it takes."""

import datetime
import os
import platform
import threading
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from types import TracebackType
from typing import Any, Self


def about(settings: dict[str, Any], packages: tuple[str, ...]) -> dict[str, Any]:
    """Date, machine, versions and settings: what every result begins with."""
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        "settings": settings,
    }


def describe_machine(result: dict[str, Any]) -> str:
    """One line for people: processor, cores, system, versions, date."""
    where = result["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    return (
        f"{where['processor']}, {where['cores']} cores, {where['system']}; {versions}; "
        f"{result['date']}"
    )


class PeerFailed(RuntimeError):
    """Another toolkit cannot do here what is measured; it says why."""


def alternate(
    candidates: Mapping[str, Callable[[], float]],
    repeats: int,
    left_out: dict[str, str] | None = None,
) -> dict[str, list[float]]:
    """Seconds of each candidate, called in turn: what slows the machine down slows all of them.

    Args:
      candidates: do their work and return the seconds it took.
      repeats: rounds; one more before them is not counted.
      left_out: gets the reason of each candidate that raises `PeerFailed`, which is not called
        again and has no seconds; None: it is raised.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(repeats + 1):
        for name in list(seconds):
            try:
                taken = candidates[name]()
            except PeerFailed as failure:
                if left_out is None:
                    raise
                left_out[name] = str(failure)
                del seconds[name]
                continue
            if turn:
                seconds[name].append(taken)
    return seconds


def timed(call: Callable[[], Any]) -> float:
    """Seconds of a call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def machine() -> dict[str, Any]:
    """What was measured on."""
    return {
        "processor": _field("/proc/cpuinfo", "model name") or platform.machine() or "unknown",
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
    }


def _field(path: str, name: str) -> str:
    """The first `name: value` of one of the kernel's files; empty where there is none."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return next(
                (line.partition(":")[2].strip() for line in file if line.startswith(name)), ""
            )
    except OSError:
        return ""


def rss_anon() -> int | None:
    """Bytes of anonymous memory of this process: not what is mapped from files. None off Linux."""
    words = _field("/proc/self/status", "RssAnon").split()
    return int(words[0]) * 1024 if words else None


class PeakMemory:
    """The peak of `rss_anon` while the block runs, looked at every 20 ms: the kernel keeps none."""

    def __init__(self) -> None:
        self.before: int | None = None
        self.peak: int | None = None
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self.before = self.peak = rss_anon()
        if self.before is not None:
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._done.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._look()

    def _watch(self) -> None:
        while not self._done.wait(0.02):
            self._look()

    def _look(self) -> None:
        if self.peak is not None:
            self.peak = max(self.peak, rss_anon() or 0)
