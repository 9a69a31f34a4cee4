"""What data parallelism should reach on machines that are not at hand: predicted, not measured.

Each device works through its share of the batch, then an all-reduce sums the gradient:

    t = max(t_c, t_a) … t_c + t_a      t_c = tokens / rate      t_a = 2 (n−1)/n · bytes / link

`rate` is one device's, measured or assumed; a ring of n devices sends 2 (n−1)/n of the gradient's
bytes over each device's link, and no algorithm without help from the network sends less (Patarasuk
& Yuan 2009; nccl-tests, doc/PERFORMANCE.md). The first bound hides it behind the backward pass, the
second hides none. Latency, the reading of data and differences between devices are left out.
"""

from typing import NamedTuple


class Machine(NamedTuple):
    """Devices and what joins them, by their makers' figures."""

    name: str
    devices: int
    link: float
    """Bytes per second that a device sends in an all-reduce, while it receives as many."""
    peak: float
    """Floating-point operations per second of one device: bfloat16, dense."""
    source: str


MACHINES = {
    machine.name: machine
    for machine in (
        Machine(
            "8xH100",
            8,
            450e9,
            989e12,
            "SXM5, NVLink 4: 900 GB/s per GPU, half of it each way (NVIDIA H100 data sheet)",
        ),
        Machine(
            "v5e-64",
            64,
            100e9,
            197e12,
            "8x8 slice; 400 GB/s per chip both ways over 4 ports (Google Cloud, TPU v5e): 50 GB/s "
            "each way over each of the 2 ports that a ring uses",
        ),
    )
}


class Prediction(NamedTuple):
    """A step of data-parallel training."""

    compute_seconds: float
    """One device's share of the batch."""
    all_reduce_seconds: float
    fastest: float
    """Tokens per second of all devices, the all-reduce hidden behind computation."""
    slowest: float
    """The same, none of it hidden."""
    efficiency: float
    """`slowest` over that many times one device's rate."""


def all_reduce_seconds(size: float, devices: int, link: float) -> float:
    """Seconds of a ring all-reduce of `size` bytes over so many devices.

    Args:
      size: bytes of one device's copy.
      devices: n; one needs none.
      link: bytes per second that each sends.
    """
    return 2 * (devices - 1) / devices * size / link


def predict(
    rate: float, tokens: float, gradient_bytes: float, devices: int, link: float
) -> Prediction:
    """Tokens per second of so many devices, from the rate of one.

    Args:
      rate: tokens per second of one device, with batches of `tokens`.
      tokens: of one device's share of a batch.
      gradient_bytes: what is summed in a step.
      devices: n.
      link: bytes per second that each sends.

    Raises:
      ValueError: numbers that are not above 0.
    """
    given = {
        "rate": rate, "tokens": tokens, "gradient_bytes": gradient_bytes, "devices": devices,
        "link": link,
    }  # fmt: skip
    for name, value in given.items():
        if not value > 0:
            raise ValueError(f"{name}={value:g}: above 0")
    compute = tokens / rate
    reduce = all_reduce_seconds(gradient_bytes, devices, link)
    return Prediction(
        compute,
        reduce,
        devices * tokens / max(compute, reduce),
        devices * tokens / (compute + reduce),
        compute / (compute + reduce),
    )


def assumed_rate(utilisation: float, peak: float, parameters: float) -> float:
    """Tokens per second of one device that uses this share of its peak.

    A target token and its source token cost 6 operations per parameter (2 forward, 4 backward;
    Kaplan et al. 2020, §2.1), sides being equally long and the output matrix shared with the
    embeddings. Attention's own products are left out: for sentences of some 30 tokens they are
    about a hundredth.

    Args:
      utilisation: model FLOPs utilisation, above 0 and at most 1.
      peak: operations per second.
      parameters: of the model.

    Raises:
      ValueError: no such utilisation.
    """
    if not 0 < utilisation <= 1:
        raise ValueError(f"utilisation={utilisation:g}: above 0, at most 1")
    return utilisation * peak / (6 * parameters)
