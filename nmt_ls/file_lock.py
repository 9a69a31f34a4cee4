"""Locks that the system takes back from a process that ends, however it ends.

Not by filelock: where a file system knows no flock it makes do with whether the file is there, and
a host that died would keep all others out, or waiting, for ever.
"""

import contextlib
import errno
import fcntl
import os
from collections.abc import Iterator

_HELD = (errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES)
"""What file systems say of a lock that another process holds."""


class HeldElsewhere(Exception):
    """Another process holds the lock."""


@contextlib.contextmanager
def file_lock(path: str | os.PathLike[str], *, wait: bool) -> Iterator[None]:
    """Hold the lock of a file, which is made where it is missing and stays, while the block runs.

    Args:
      path: a file that nothing else is in.
      wait: for another process to give it back.

    Raises:
      HeldElsewhere: another process holds it, and nobody was to wait.
      OSError: the file cannot be made, or cannot be locked: not all file systems have locks.
    """
    with open(path, "ab") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            if wait or error.errno not in _HELD:
                raise
            raise HeldElsewhere from None
        yield
