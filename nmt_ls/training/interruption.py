"""Ctrl-C and SIGTERM. Training finishes the step, writes a checkpoint, then stops.

Hosts that train together go on to the next step at which they log, validate or save.
"""

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any

from nmt_ls.messages import tell


class Interrupted(Exception):
    """Ctrl-C or SIGTERM: the step was finished and a checkpoint written."""

    def __init__(self, signal_number: int):
        super().__init__(f"interrupted by signal {signal_number}; run the same command to continue")
        self.signal_number = signal_number


class Terminated(BaseException):
    """SIGTERM, as KeyboardInterrupt is Ctrl-C: no `except Exception` may keep it."""


@contextlib.contextmanager
def raising_terminated() -> Iterator[None]:
    """SIGTERM raises `Terminated`, so that files are left as on Ctrl-C; a second one just ends."""

    def end(number: int, _frame: object) -> None:
        signal.signal(number, before)
        raise Terminated

    def again(unraisable: Any) -> None:
        # Raised where Python can only drop it: in `__del__`, or in jax's callback of the collector.
        if isinstance(unraisable.exc_value, Terminated):
            signal.signal(signal.SIGTERM, end)
            threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGTERM)).start()
        else:
            hook(unraisable)

    hook = sys.unraisablehook
    before: Any = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
    try:
        signal.signal(signal.SIGTERM, end)
    except ValueError:  # not the main thread: signals are somebody else's
        yield
        return
    sys.unraisablehook = again
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def collect_signals(hosts: int = 1) -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT; a second one acts as it would without us.

    Args:
      hosts: that train together; several stop where all of them look for a signal.
    """
    received: list[int] = []
    end = "this step" if hosts == 1 else "the steps up to the next record, validation or checkpoint"

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])
        tell(f"\nfinishing {end}, then writing a checkpoint …")

    before: dict[int, Any] = {}
    try:
        for number in (signal.SIGTERM, signal.SIGINT):
            before[number] = signal.signal(number, note)
    except ValueError:  # not the main thread: signals are somebody else's
        pass
    try:
        yield received
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
