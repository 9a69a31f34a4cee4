"""Ctrl-C and SIGTERM: finish the step, write a checkpoint, then stop."""

import contextlib
import signal
import sys
from collections.abc import Iterator
from typing import Any


class Interrupted(Exception):
    """Ctrl-C or SIGTERM: the step was finished and a checkpoint written."""

    def __init__(self, signal_number: int):
        super().__init__(f"interrupted by signal {signal_number}; run the same command to continue")
        self.signal_number = signal_number


@contextlib.contextmanager
def collect_signals() -> Iterator[list[int]]:
    """Collects SIGTERM and SIGINT; a second one acts as it would without us."""
    received: list[int] = []

    def note(number: int, _frame: object) -> None:
        received.append(number)
        signal.signal(number, before[number])
        print("\nfinishing this step and writing a checkpoint …", file=sys.stderr)

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
