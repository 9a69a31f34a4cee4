"""Eight virtual CPU devices and a cache of our own, set before anything imports jax.

The cache is one for all of pytest-xdist's workers and for what tests start: a program that has
been compiled in one of them is not compiled in another.
"""

import gc
import os
import tempfile
from importlib.metadata import version

# Tests compile a lot and compute little. Without LLVM's optimisations, and with XLA's older
# emitters where they still exist (a flag that jaxlib does not know is fatal to it), a training
# step compiles in a third of the time. NMT_LS_TESTS_OPTIMIZED=1 compiles as users do.
QUICK = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):
    QUICK += " --xla_cpu_use_fusion_emitters=false"

_flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in _flags:
    _flags += " --xla_force_host_platform_device_count=8"
if not os.environ.get("NMT_LS_TESTS_OPTIMIZED"):
    _flags += " " + QUICK
os.environ["XLA_FLAGS"] = _flags.strip()
os.environ["JAX_PLATFORMS"] = "cpu"
if "PYTEST_XDIST_WORKER" not in os.environ:  # a worker has its controller's
    _cache = tempfile.TemporaryDirectory(prefix="nmt-ls-tests-")
    os.environ["NMT_LS_CACHE"] = _cache.name

# Files that take long though their tests are few; a worker that begins one of them last would work
# on alone (pytest-xdist's own order, by the number of tests, is off in scripts/test).
_FIRST = ("system", "sweep", "trainer", "cli", "population", "population_step", "objective")


def pytest_collection_modifyitems(items):
    from nmt_ls.compilation import enable_compilation_cache

    enable_compilation_cache()
    order = {f"test_{name}.py": place for place, name in enumerate(_FIRST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))
    # What has been imported stays; the collector need not look through it again and again.
    gc.collect()
    gc.freeze()
