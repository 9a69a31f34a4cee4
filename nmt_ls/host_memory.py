"""How the C library hands out memory, for programs that allocate as much at every step."""

import ctypes
import resource
import sys
from pathlib import Path

# malloc.h and sys/mman.h of Linux with glibc
_TRIM_THRESHOLD, _MMAP_MAX, _ARENA_MAX = -1, -4, -8
_MADV_HUGEPAGE = 14

_KEPT = 2**31 - 1
"""Bytes of free memory that a process keeps: what mallopt's int holds."""


def keep_freed_memory() -> bool:
    """Keep what is freed for what is allocated next, and have it in huge pages.

    XLA's CPU programs allocate their temporaries anew at each call. glibc maps large blocks and
    unmaps them when they are freed, so that the kernel clears each of their pages again: a sixth
    of a training step's processor time. A process keeps up to 2 GiB. In pages of 2 MiB instead of
    4 KiB, where the kernel has them, their addresses take less looking up: a twentieth
    (docs/performance.md).

    Returns:
      Whether freed memory is kept: on Linux with glibc, that is.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        libc = ctypes.CDLL(None)
        mallopt = libc.mallopt
    except (AttributeError, OSError):  # another C library
        return False
    # One arena: those of threads map large blocks whatever they are told.
    wanted = ((_ARENA_MAX, 1), (_MMAP_MAX, 0), (_TRIM_THRESHOLD, _KEPT))
    kept = all(bool(mallopt(name, value)) for name, value in wanted)
    if kept and _addresses_are_free():
        _use_huge_pages(libc)
    return kept


def _addresses_are_free() -> bool:
    """Whether memory counts for nobody before it is written to."""
    limits = (resource.RLIMIT_AS, resource.RLIMIT_DATA)
    if any(resource.getrlimit(limit)[0] != resource.RLIM_INFINITY for limit in limits):
        return False
    try:
        return Path("/proc/sys/vm/overcommit_memory").read_text().strip() != "2"
    except OSError:
        return False


def _use_huge_pages(libc: ctypes.CDLL) -> None:
    """Grow the heap once by what is kept, and ask for huge pages there.

    Nothing is taken from the machine before it is written to. The heap can only be advised of as a
    whole once it is there; what it grows by later has pages of 4 KiB.
    """
    libc.malloc.restype = libc.sbrk.restype = ctypes.c_void_p
    libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    libc.sbrk.argtypes = [ctypes.c_ssize_t]
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    page = 2**21
    block = libc.malloc(_KEPT - page)
    if not block:  # small pages do as well
        return
    libc.free(block)
    begin, end = -(-block // page) * page, libc.sbrk(0)
    # Elsewhere, where the heap could not grow on.
    if begin < end and block < end <= block + _KEPT + page:
        libc.madvise(begin, end - begin, _MADV_HUGEPAGE)
