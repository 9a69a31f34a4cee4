"""Time and memory of the loss, forward and backward, beside the other ways to compute it."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from statistics import median
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from tabulate import tabulate

from nmt_ls.bench.machine import PeakMemory, about, alternate, describe_machine, timed
from nmt_ls.bench.sides import asked_for, equal_precision
from nmt_ls.bench.torch_peer import TorchWorker, example_arrays
from nmt_ls.losses import (
    label_smoothed_cross_entropy,
    linear_label_smoothed_cross_entropy,
    linear_label_smoothed_cross_entropy_sum,
    linear_label_smoothed_cross_entropy_sum_with_statistics,
)

EPSILON = 0.1

ONE_HOT = "optax: one-hot, smooth_labels"
CLOSED = "closed form on full logits"
SUM = "fused, sum"
PER_TOKEN = "fused, per token, summed"
WEIGHTED = "fused, per token, random weights"
STATISTICS = "fused, sum, with statistics"
UNSMOOTHED = "fused, sum, without the smoothing term"
PRODUCTS = "three matrix products alone"
TORCH = "torch: linear, cross_entropy"

WANTED = (
    (SUM, ONE_HOT, 0.6),
    (SUM, CLOSED, 0.85),
    (SUM, TORCH, 0.45),
    (PER_TOKEN, ONE_HOT, 0.6),
    (PER_TOKEN, CLOSED, 0.85),
    (WEIGHTED, CLOSED, 1.2),
    (SUM, UNSMOOTHED, 1.02),
    (STATISTICS, SUM, 1.1),
)
"""(what, beside what, the ratio of times that is asked for at most)."""


class Arrays(NamedTuple):
    """What a loss is computed of."""

    hidden: jax.Array
    embedding: jax.Array
    bias: jax.Array
    labels: jax.Array
    weights: jax.Array
    epsilon: jax.Array


def bench_loss(
    *,
    rows: int = 2048,
    width: int = 512,
    vocab_size: int = 32_000,
    dtype: str = "float32",
    repeats: int = 7,
    long: bool = False,
    peers: bool = True,
) -> dict[str, Any]:
    """Times the loss and its gradients of hidden, embedding and bias, each way in turn.

    Args:
      rows, width, vocab_size: N, D and V.
      dtype: of hidden and embedding.
      repeats: rounds, after one that does not count.
      long: also 65,536 rows with V = 256,000 and D = 64, for its memory.
      peers: torch too, where it is installed.

    Returns:
      machine, versions, settings; `ways`: for each its name, seconds (the median), repeats,
      temporary_bytes and temporary_bytes_twice (XLA's temporaries, and with twice the rows);
      `ratios`: those of `WANTED` as what, beside, ratio, wanted (None where torch is on another
      kind of device); `torch_device`; `long`: rss_anon_bytes, seconds.

    Raises:
      ValueError: sizes or repeats under 1.
    """
    settings = {
        "rows": rows,
        "width": width,
        "vocab_size": vocab_size,
        "repeats": repeats,
        "dtype": dtype,
    }
    for name in ("rows", "width", "vocab_size", "repeats"):
        if settings[name] < 1:  # type: ignore[operator]
            raise ValueError(f"{name}={settings[name]}: at least 1")
    with_torch = peers and find_spec("torch") is not None
    packages = ("jax", "jaxlib", "optax", *(("torch",) if with_torch else ()))
    result = about(settings, packages)
    result["machine"]["device"] = jax.devices()[0].device_kind
    arrays = _arrays(rows, width, vocab_size, dtype)
    with equal_precision(dtype) as precision:
        compiled = {name: _compiled(way, arrays) for name, way in _WAYS.items()}
    result["settings"]["precision"] = precision
    candidates: dict[str, Callable[[], float]] = {
        name: partial(_run, program, arrays) for name, program in compiled.items()
    }
    worker = TorchWorker(rows, width, vocab_size, dtype, EPSILON) if with_torch else None
    if worker is not None:
        candidates[TORCH] = worker.run
    theirs = ""
    try:
        seconds = alternate(candidates, repeats)
        theirs = worker.device() if worker is not None else ""
    finally:
        if worker is not None:
            worker.close()
    twice = _arrays(2 * rows, width, vocab_size, dtype, shapes_only=True)
    result["ways"] = [
        {
            "name": name,
            "seconds": median(seconds[name]),
            "repeats": seconds[name],
            "temporary_bytes": _temporaries(compiled.get(name)),
            "temporary_bytes_twice": (
                _temporaries(_compiled(_WAYS[name], twice)) if name in _WAYS else None
            ),
        }
        for name in candidates
    ]
    middle = {name: median(times) for name, times in seconds.items()}
    result["ratios"] = [
        {
            "what": what,
            "beside": beside,
            "ratio": middle[what] / middle[beside],
            "wanted": asked_for(wanted, 1, theirs) if beside == TORCH else wanted,
        }
        for what, beside, wanted in WANTED
        if beside in middle
    ]
    result["torch_device"] = theirs or None
    result["long"] = _long() if long else None
    return result


def describe(result: dict[str, Any]) -> str:
    """The result of `bench_loss` as text."""
    s = result["settings"]
    fastest = min(w["seconds"] for w in result["ways"])
    rows = [
        [
            way["name"],
            f"{way['seconds'] / fastest:.2f}",
            f"{way['seconds']:.3f}",
            _megabytes(way["temporary_bytes"]),
            _megabytes(way["temporary_bytes_twice"]),
        ]
        for way in result["ways"]
    ]
    headers = ["", "time, ratio", "median (s)", "XLA temporaries (MB)", "with 2 N"]
    table = tabulate(rows, headers, disable_numparse=True, colalign=("left", *["right"] * 4))
    ratios = tabulate(
        [
            [
                f"{r['what']} / {r['beside']}",
                f"{r['ratio']:.2f}",
                "" if r["wanted"] is None else f"≤ {r['wanted']:g}",
            ]
            for r in result["ratios"]
        ],
        ["ratio of medians", "found", "asked for"],
        disable_numparse=True,
        colalign=("left", "right", "right"),
    )
    long = ""
    if result["long"]:
        peak = result["long"]["rss_anon_bytes"]
        long = (
            f"\n\nN = 65,536, D = 64, V = 256,000, fused sum with gradients: "
            f"{'unknown' if peak is None else f'{peak / 1e9:.2f} GB'} of anonymous memory at most, "
            f"{result['long']['seconds']:.0f} s"
        )
    return (
        f"Loss and gradients of hidden, embedding and bias: N = {s['rows']:,}, D = {s['width']:,}, "
        f"V = {s['vocab_size']:,}, {s['dtype']}, ε = {EPSILON};\nmedian of {s['repeats']} rounds "
        f"in turn, on {result['machine']['device']}\n\n{table}\n\n{ratios}{long}\n\n"
        f"{describe_machine(result)}"
    )


# --- the ways ------------------------------------------------------------------------------------


def _one_hot(hidden, embedding, bias, a: Arrays):
    logits = hidden @ embedding.T + bias
    targets = optax.smooth_labels(jax.nn.one_hot(a.labels, logits.shape[-1]), a.epsilon)
    return jnp.sum(optax.softmax_cross_entropy(logits, targets))


def _closed(hidden, embedding, bias, a: Arrays):
    logits = hidden @ embedding.T + bias
    return jnp.sum(label_smoothed_cross_entropy(logits, a.labels, a.epsilon))


def _sum(hidden, embedding, bias, a: Arrays):
    return linear_label_smoothed_cross_entropy_sum(
        hidden, embedding, a.labels, a.epsilon, bias=bias
    )


def _unsmoothed(hidden, embedding, bias, a: Arrays):
    # A static 0 leaves the term out of the program.
    return linear_label_smoothed_cross_entropy_sum(hidden, embedding, a.labels, 0.0, bias=bias)


def _with_statistics(hidden, embedding, bias, a: Arrays):
    return linear_label_smoothed_cross_entropy_sum_with_statistics(
        hidden, embedding, a.labels, a.epsilon, bias=bias
    )


def _per_token(hidden, embedding, bias, a: Arrays):
    loss = linear_label_smoothed_cross_entropy(hidden, embedding, a.labels, a.epsilon, bias=bias)
    return jnp.sum(loss)


def _weighted(hidden, embedding, bias, a: Arrays):
    loss = linear_label_smoothed_cross_entropy(hidden, embedding, a.labels, a.epsilon, bias=bias)
    return jnp.vdot(a.weights, loss)


def _gradients(loss: Callable, has_aux: bool = False) -> Callable[[Arrays], Any]:
    def way(a: Arrays):
        def mean(hidden, embedding, bias):
            found = loss(hidden, embedding, bias, a)
            value, aux = found if has_aux else (found, None)
            return value / len(a.labels), aux

        arguments = (a.hidden, a.embedding, a.bias)
        return jax.value_and_grad(mean, argnums=(0, 1, 2), has_aux=True)(*arguments)

    return way


def _products(a: Arrays):
    """The floor: logits, the gradient of hidden, that of embedding, as matrix products alone."""
    logits = a.hidden @ a.embedding.T
    return logits @ a.embedding, logits.T @ a.hidden


_WAYS: dict[str, Callable[[Arrays], Any]] = {
    ONE_HOT: _gradients(_one_hot),
    CLOSED: _gradients(_closed),
    SUM: _gradients(_sum),
    PER_TOKEN: _gradients(_per_token),
    WEIGHTED: _gradients(_weighted),
    STATISTICS: _gradients(_with_statistics, has_aux=True),
    UNSMOOTHED: _gradients(_unsmoothed),
    PRODUCTS: _products,
}


def _arrays(
    rows: int, width: int, vocab_size: int, dtype: str, *, shapes_only: bool = False
) -> Arrays:
    def make() -> Arrays:
        hidden, embedding, bias, labels = example_arrays(rows, width, vocab_size)
        weights = np.random.default_rng(1).random(rows, np.float32)
        return Arrays(
            jnp.asarray(hidden, dtype),
            jnp.asarray(embedding, dtype),
            jnp.asarray(bias),
            jnp.asarray(labels),
            jnp.asarray(weights),
            jnp.float32(EPSILON),
        )

    return jax.eval_shape(make) if shapes_only else make()


def _compiled(way: Callable, arrays: Arrays) -> Any:
    return jax.jit(way).lower(arrays).compile()


def _run(program: Any, arrays: Arrays) -> float:
    return timed(lambda: jax.block_until_ready(program(arrays)))


def _temporaries(program: Any) -> int | None:
    return None if program is None else program.memory_analysis().temp_size_in_bytes


def _megabytes(count: int | None) -> str:
    return "" if count is None else f"{count / 1e6:,.0f}"


def _long() -> dict[str, Any]:
    """Logits of 67 GB that are never there."""
    with PeakMemory() as memory:
        arrays = _arrays(65_536, 64, 256_000, "float32")
        program = _compiled(_WAYS[SUM], arrays)
        seconds = _run(program, arrays)
    used = None if memory.peak is None else memory.peak - (memory.before or 0)
    return {"rss_anon_bytes": used, "seconds": seconds}
