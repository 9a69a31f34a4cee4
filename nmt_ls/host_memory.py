"""How the C library hands out memory, for programs that allocate as much at every step."""

import ctypes
import sys

# malloc.h of glibc
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> bool:
    """Keep what is freed for what is allocated next, instead of giving it back to the kernel.

    XLA's CPU programs allocate their temporaries anew at each call. glibc maps large blocks and
    unmaps them when they are freed, so that the kernel clears each of their pages again: a sixth
    of a training step's processor time (docs/performance.md). A process keeps up to 2 GiB.

    Returns:
      Whether that was possible: on Linux with glibc, that is.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):  # another C library
        return False
    # One arena: those of threads map large blocks whatever they are told.
    wanted = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, 2**31 - 1))
    return all(bool(mallopt(name, value)) for name, value in wanted)
