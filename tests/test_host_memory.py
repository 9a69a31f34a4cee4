"""Memory that is freed stays with the process."""

import resource
import subprocess
import sys
from pathlib import Path

import pytest

from nmt_ls.host_memory import _addresses_are_free, keep_freed_memory

FAULTS = """
import resource, sys
import numpy as np
from nmt_ls.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
np.ones(2**24, np.uint8)
before = faults()
for _ in range(20):
    np.ones(2**24, np.uint8)  # 16 MiB: 4,096 pages
print(faults() - before)
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
def test_pages_are_not_cleared_again() -> None:
    found = {
        way: int(subprocess.check_output([sys.executable, "-c", FAULTS, way]))
        for way in ("keep", "give back")
    }
    assert found["keep"] < 4096
    assert found["keep"] <= found["give back"]


ADVISED = """
from nmt_ls.host_memory import keep_freed_memory
assert keep_freed_memory()
name, largest = "", 0
for line in open("/proc/self/smaps"):
    first, *rest = line.split()
    if not first.endswith(":"):
        name = rest[-1]
    elif first == "Size:":
        size = int(rest[0])
    elif first == "VmFlags:" and name == "[heap]" and "hg" in rest:
        largest = max(largest, size)
print(largest // 1024, open("/proc/self/statm").read().split()[1])
"""


@pytest.mark.skipif(not keep_freed_memory(), reason="the C library is not glibc")
@pytest.mark.skipif(
    not (Path("/sys/kernel/mm/transparent_hugepage").exists() and _addresses_are_free()),
    reason="no huge pages in this kernel, or memory that is not written to counts too",
)
def test_the_heap_may_have_huge_pages_and_takes_nothing_yet() -> None:
    advised, resident = subprocess.check_output([sys.executable, "-c", ADVISED], text=True).split()
    # Nothing where the machine has less: malloc is refused what is more than all of it.
    assert int(advised) == 0 or 2000 < int(advised) <= 2**11
    assert int(resident) * resource.getpagesize() < 2**27


def test_a_limit_on_addresses_leaves_small_pages() -> None:
    limited = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (2**30, 2**30))
from nmt_ls.host_memory import keep_freed_memory
keep_freed_memory()
print(len(bytearray(2**26)))
"""
    assert int(subprocess.check_output([sys.executable, "-c", limited])) == 2**26
