"""The device that a study measures on."""

import os
import subprocess
import sys
from collections.abc import Mapping

from nmt_ls.errors import UserError

_ASKED = """
import jax
print(jax.default_backend(), jax.devices()[0].device_kind, sep="\\t")
"""


def one_gpu() -> dict[str, str]:
    """Variables of all commands: one GPU for all sides, whose memory JAX does not take at once."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
    return {"CUDA_VISIBLE_DEVICES": first, "XLA_PYTHON_CLIENT_PREALLOCATE": "false"}


def device_of(environment: Mapping[str, str], seconds: float | None = None) -> tuple[str, str]:
    """jax's backend under these variables, and what its device is called.

    Asked in a process of its own, so that this one takes no GPU.

    Args:
      environment: the variables.
      seconds: that this may take.

    Raises:
      UserError: jax finds none, or not in time.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-c", _ASKED],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        raise UserError(
            f"jax has not started within {seconds:.0f} s; give a call more with --seconds"
        ) from error
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        raise UserError(f"jax does not start: {said[-1]}")
    backend, _, kind = done.stdout.strip().splitlines()[-1].partition("\t")
    return backend, kind
