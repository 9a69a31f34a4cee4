"""Memory that is freed stays with the process."""

import subprocess
import sys

import pytest

from nmt_ls.host_memory import keep_freed_memory

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
