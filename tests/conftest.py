"""Eight virtual CPU devices and a cache of our own, set before anything imports jax."""

import os
import tempfile

_flags = os.environ.get("XLA_FLAGS", "")
if "xla_force_host_platform_device_count" not in _flags:
    os.environ["XLA_FLAGS"] = f"{_flags} --xla_force_host_platform_device_count=8".strip()
os.environ["JAX_PLATFORMS"] = "cpu"
_cache = tempfile.TemporaryDirectory(prefix="nmt-ls-tests-")
os.environ["NMT_LS_CACHE"] = _cache.name
