"""How much memory training takes, estimated without compiling anything."""

import dataclasses
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from nmt_ls.config import Config
from nmt_ls.data.batches import Batch
from nmt_ls.data.prepare import PreparedData
from nmt_ls.model import DropoutRates
from nmt_ls.parallel import DataParallel
from nmt_ls.training.objective import LossData
from nmt_ls.training.population_step import Way
from nmt_ls.training.programs import decisive
from nmt_ls.training.step import initial_state, make_local_loss
from nmt_ls.training.trainer import batches_of

_USABLE = 0.8
"""Share of the memory that is counted on: validation, buffers and fragments want some too."""


class Bytes(NamedTuple):
    """Memory of a population."""

    each: int
    """For each member."""
    once: int
    """Whatever their number."""


def bytes_of(config: Config, data: PreparedData, way: Way) -> Bytes:
    """What a population of runs like this one takes on a device; on CPU, on all virtual ones.

    Counts the state, the gradient and the updates, and what the backward pass keeps of the forward
    one for the largest batch (before XLA fuses, so more than is measured). On CPU also the copies
    that are on their way to a checkpoint.
    """
    parallel = DataParallel(config.training.devices)
    model, loss, training = decisive(config)
    subwords = data.subwords
    sizes = (subwords.source_size, subwords.target_size)
    shapes = jax.eval_shape(lambda: initial_state(model, training, sizes, 0))
    state, params = _total(shapes), _total(shapes.params)
    part = _largest_part(config, data, parallel.count)
    # A teacher's forward pass leaves nothing behind but its parameters.
    teacher = params if loss.graduated == "run" else 0
    if teacher:
        loss = dataclasses.replace(loss, graduated="none")
    local_loss = make_local_loss(model, loss, sizes, subwords.bos, subwords.pad)

    def kept(params):
        key = jax.random.key(0, impl="threefry2x32")
        rates = DropoutRates(*(jnp.float32(0.5) for _ in range(3)))

        def total(params):
            return local_loss(params, part, key, jnp.float32(0.1), rates, LossData())

        return jax.vjp(total, params, has_aux=True)[1]

    # The parameters themselves are among what is kept.
    work = 2 * params + max(_total(jax.eval_shape(kept, shapes.params)) - params, 0)
    if way == "vmap":  # the old state stays until it is known which members take the step
        each, once = 2 * state + work, teacher
    else:
        each, once = state, 2 * state + work + teacher
    if jax.default_backend() == "cpu":
        here = len(parallel.local)
        return Bytes(each * here + 2 * state, once * here)
    return Bytes(each, once)


def _largest_part(config: Config, data: PreparedData, devices: int) -> Batch:
    """Shapes of what one device works on at a time."""
    stream = batches_of(config, data, devices)
    rows = stream.plan.rows[stream.plan.largest]
    source, target = stream.plan.shapes[stream.plan.largest]
    rows = -(-rows // stream.row_multiple)
    shapes = ((rows, source), (rows,), (rows, target), (rows,))
    return Batch(*(np.zeros(shape, np.int32) for shape in shapes))


def _total(tree: object) -> int:
    return sum(int(np.prod(x.shape)) * x.dtype.itemsize for x in jax.tree.leaves(tree))


def available_bytes() -> int:
    """What the first device has for us, or what is free of this machine's memory on CPU."""
    statistics = jax.local_devices()[0].memory_stats()
    if statistics and "bytes_limit" in statistics:
        free = statistics["bytes_limit"] - statistics.get("bytes_in_use", 0)
    else:
        free = min(_free_of_the_machine(), _free_of_the_control_group())
    return int(free * _USABLE)


def _free_of_the_machine() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 8 * 2**30  # nothing says how much there is: a small machine's


def _free_of_the_control_group() -> int:
    """What a container may still take; unlimited where nothing limits it."""
    folder = Path("/sys/fs/cgroup")
    try:
        most = int((folder / "memory.max").read_text())
        return max(0, most - int((folder / "memory.current").read_text()))
    except (OSError, ValueError):  # no such file, or `max`
        return 2**63
