"""What makes a ratio of two sides say something: equal precision, equal devices."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def equal_precision(compute: str) -> Iterator[str]:
    """float32 products in full float32 while the block runs, as torch and CTranslate2 make them.

    By default jax makes them of TF32, which has 10 bits instead of 23, on NVIDIA GPUs that have it
    (https://docs.jax.dev/en/latest/201/precision.html). Nothing changes on other machines, for
    bfloat16, or where jax has been told a precision (`JAX_DEFAULT_MATMUL_PRECISION`).

    Args:
      compute: type of the products, float32 or bfloat16.

    Yields:
      the precision's name, for the settings of a result; "" is jax's default.
    """
    name = "jax_default_matmul_precision"
    before = getattr(jax.config, name)
    full = compute == "float32" and jax.default_backend() == "gpu" and before is None
    if full:
        jax.config.update(name, "highest")
    try:
        yield getattr(jax.config, name) or ""
    finally:
        if full:
            jax.config.update(name, before)


def asked_for(wanted: float | None, devices: int, theirs: str) -> float | None:
    """What is asked of our ratio to a peer; None where their devices are no match for ours.

    Args:
      wanted: on equal devices.
      devices: ours; on a CPU they are its cores.
      theirs: "cpu" or "cuda", of which a peer uses one.
    """
    ours = jax.default_backend()
    equal = ours == theirs == "cpu" or (ours == "gpu" and theirs == "cuda" and devices == 1)
    return wanted if equal else None
