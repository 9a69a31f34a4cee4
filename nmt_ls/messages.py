"""Lines on stderr. Whoever reads them may have gone (`nmt-ls train … 2>&1 | tee log`, interrupted:
tee dies first); that must not cost a checkpoint, nor the exit status."""

import contextlib
import logging
import os
import sys
from collections.abc import Iterator


def tell(line: str) -> None:
    """Write a line to stderr, or to nobody."""
    with unheard():
        print(line, file=sys.stderr, flush=True)


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """A block that writes to stderr; that nobody reads it is no error.

    Nor is that a signal has come in the middle of another write (RuntimeError).
    """
    try:
        yield
    except BrokenPipeError:
        _write_to_nobody()
    except (OSError, ValueError, RuntimeError):
        pass


def _write_to_nobody() -> None:
    # What is still in the buffer would make the exit status 120 as Python ends.
    with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nobody:
        os.dup2(nobody.fileno(), sys.stderr.fileno())


class Handler(logging.StreamHandler):
    """The log on stderr, as `tell` writes there."""

    def handleError(self, record: logging.LogRecord) -> None:
        if isinstance(sys.exc_info()[1], BrokenPipeError):
            _write_to_nobody()
            return
        with unheard():
            super().handleError(record)
