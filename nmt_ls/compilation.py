"""The cache of compiled programs, and a count of what was compiled."""

import os
from pathlib import Path

import jax

_MISSES = "/jax/compilation_cache/cache_misses"


def user_cache() -> Path:
    """Where caches live: `$NMT_LS_CACHE`, else `~/.cache/nmt_ls`."""
    return Path(os.environ.get("NMT_LS_CACHE") or Path.home() / ".cache" / "nmt_ls")


def enable_compilation_cache() -> None:
    """Keep compiled programs between runs; a program compiled once is never compiled again.

    jax skips programs that compile in under a second by default; ours are many and small.
    `JAX_COMPILATION_CACHE_DIR` chooses another place.
    """
    if not jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        jax.config.update("jax_compilation_cache_dir", str(user_cache() / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)
    # The autotuning caches are keyed apart and of no use on CPU.
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


class CompilationCounter:
    """Counts programs that were not in the cache and had to be compiled, since it was made."""

    _process_total = 0
    _listening = False

    def __init__(self) -> None:
        if not CompilationCounter._listening:
            # Listeners cannot be taken away again, so the process has one.
            jax.monitoring.register_event_listener(CompilationCounter._listen)
            CompilationCounter._listening = True
        self._before = CompilationCounter._process_total

    @property
    def misses(self) -> int:
        return CompilationCounter._process_total - self._before

    @staticmethod
    def _listen(event: str, **_: object) -> None:
        CompilationCounter._process_total += event == _MISSES
