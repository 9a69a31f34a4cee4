"""Data parallelism: the one file that says `pmap`. One device, many devices, many hosts.

A training step keeps its state replicated and splits the rows of a batch evenly; what it sums over
devices it sums with `psum` over the axis `AXIS`, outside of whatever is differentiated.
"""

import os
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from typing import Any

import jax
import numpy as np

from nmt_ls.errors import UserError

AXIS = "data"


def initialise_hosts(
    coordinator: str | None = None, processes: int | None = None, process: int | None = None
) -> None:
    """Join the other hosts of this run through `jax.distributed`.

    Without arguments jax detects SLURM, Open MPI and cloud TPUs; elsewhere name the coordinator's
    `host:port`, the number of processes and this one's index.

    Raises:
      UserError: jax detects nothing and something is not named; the port is taken.
    """
    try:
        jax.distributed.initialize(coordinator, processes, process)
    except (IndexError, RuntimeError, ValueError) as error:
        named = None not in (coordinator, processes, process)
        raise UserError(
            f"the other hosts cannot be joined: {' '.join(str(error).split())[:300]}\n"
            + (
                "is the coordinator's port free, and within reach of all of them?"
                if named
                else "where jax detects no cluster name --coordinator, --processes and --process on"
                " each"
            )
        ) from error


MOST_CPU_DEVICES = 8
"""Each has a copy of the parameters."""


def cores_as_devices() -> None:
    """Make each core of a CPU a device of its own, for work whose rows do not need one another.

    Two threads gain little on small products and nothing on what lies between them; two devices
    work through two batches, or through the halves of one (docs/performance.md). Nothing changes
    where jax is going to compute on a GPU or TPU, whose host keeps its threads, where it has begun
    already, or where `XLA_FLAGS` says how many devices there are or `NPROC` how many threads.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    devices = min(cores or 1, MOST_CPU_DEVICES)
    told = "NPROC" in os.environ or "device_count" in os.environ.get("XLA_FLAGS", "")
    if devices == 1 or told or on_accelerator(getattr(jax.config, "jax_platforms", None) or ""):
        return
    try:
        jax.config.update("jax_num_cpu_devices", devices)
    except RuntimeError:  # it has begun
        return
    # XLA takes the number of its CPU threads from here.
    os.environ["NPROC"] = str(max(1, (cores or 1) // devices))


def on_accelerator(platforms: str) -> bool:
    """Whether jax is going to compute on a GPU or TPU, as far as it can be told before it begins.

    Args:
      platforms: those that it has been told to use (`JAX_PLATFORMS`), or nothing.
    """
    if platforms:
        return platforms.split(",")[0] != "cpu"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return False
    plugins = ("jax_cuda13_plugin", "jax_cuda12_plugin", "libtpu")
    devices = ("/dev/nvidiactl", "/dev/dxg", "/dev/accel0", "/dev/vfio/0")
    return any(map(find_spec, plugins)) and any(map(os.path.exists, devices))


def is_main() -> bool:
    """Whether this host writes the files and talks to the user."""
    return jax.process_index() == 0


class DataParallel:
    """The devices of a run and how batches are laid out over them.

    Args:
      devices: use the first so many devices of each host; 0 means all.
    """

    def __init__(self, devices: int = 0):
        here = jax.local_devices()
        if devices > len(here):
            raise UserError(
                f"training.devices={devices}, but there are {len(here)} here; 0 takes all of them"
            )
        self.local = here[:devices] if devices else here
        self.hosts = jax.process_count()
        everywhere = [d for d in jax.devices() if d.process_index != jax.process_index()]
        if self.hosts > 1 and devices and len(everywhere):
            raise UserError("training.devices is for a single host; leave it 0 on several")
        self.count = len(self.local) * self.hosts
        """Devices over all hosts."""
        # pmap wants global devices only when it is restricted to some of them.
        self._devices = self.local if devices else None

    def split_rows(self, batch: Any, parts: int = 1) -> Any:
        """This host's rows of a global batch: `[R, …]` → `[devices, parts, R/…, …]`.

        R must divide by devices · parts.
        """

        def split(x: np.ndarray) -> np.ndarray:
            per_device = x.reshape(self.count, parts, -1, *x.shape[1:])
            first = jax.process_index() * len(self.local)
            return per_device[first : first + len(self.local)]

        return jax.tree.map(split, batch)

    def whole_rows(self, rows: int) -> int:
        """The next number of rows that divides by this host's devices."""
        return -(-rows // len(self.local)) * len(self.local)

    def replicate(self, tree: Any) -> Any:
        """A copy on every device, laid out as `step` returns it (so that step compiles once).

        Numpy arrays too are copied, never taken over: what comes back may be donated.
        """
        if not jax.tree.leaves(tree):  # which pmap on several hosts cannot return
            return tree
        copy = jax.pmap(
            lambda x, _: x, AXIS, in_axes=(None, 0), out_axes=None, devices=self._devices
        )
        return copy(tree, np.zeros(len(self.local)))

    def step(self, fn: Callable) -> Callable:
        """`fn(state, batch, *scalars) → (state, sums)` over all devices; donates the state.

        State and scalars are replicated, the batch is split; what comes back is equal everywhere.
        """

        def call(state, batch, *scalars):
            key = len(scalars)
            if key not in compiled:
                compiled[key] = self._program(fn, key)
            return compiled[key](state, batch, *scalars)

        compiled: dict[int, Callable] = {}
        return call

    def lowered(self, fn: Callable, state: Any, batch: Any, *scalars: Any) -> jax.stages.Lowered:
        """The program of `step` for these arguments (shapes will do): to compile and look at."""
        return self._program(fn, len(scalars)).lower(state, batch, *scalars)

    def _program(self, fn: Callable, scalars: int) -> Any:
        axes = (None, 0, *(None for _ in range(scalars)))
        return jax.pmap(
            fn, AXIS, in_axes=axes, out_axes=None, devices=self._devices, donate_argnums=0
        )

    def rows(self, fn: Callable) -> Callable:
        """`fn(params, rows) → rows'` on this host's devices, for evaluation and decoding.

        Takes and gives numpy arrays whose first axis must divide by the local devices.
        """
        start = self.started_rows(fn)
        return lambda params, rows: start(params, rows)()

    def started_rows(self, fn: Callable) -> Callable:
        """As `rows`, but a call only starts the work and returns a function that waits for it."""
        compiled = jax.pmap(fn, AXIS, in_axes=(None, 0), devices=self.local)

        def call(params, rows):
            n = len(self.local)
            split = jax.tree.map(lambda x: x.reshape(n, len(x) // n, *x.shape[1:]), rows)
            out = compiled(params, split)

            def finish():
                return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), jax.device_get(out))

            return finish

        return call

    def on_local_devices(self, tree: Any) -> Any:
        """A copy on each of this host's devices, as `rows` wants what all rows share."""
        mesh = jax.sharding.Mesh(np.array(self.local), (AXIS,))
        everywhere = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
        return jax.device_put(tree, everywhere)


def to_host(tree: Any) -> Any:
    """A replicated tree as numpy arrays, from this host's first device; numpy's own stay."""
    return jax.tree.map(
        lambda x: np.asarray(x.addressable_data(0) if isinstance(x, jax.Array) else x), tree
    )


def barrier(name: str) -> None:
    """Wait for the other hosts."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def equal_on_hosts(value: int) -> bool:
    """Whether all hosts bring the same number below 2³¹; each must ask at the same point."""
    largest, least = largest_on_hosts(value), -largest_on_hosts(-value)
    return largest == least


def of_main_host(values: Mapping[str, float]) -> dict[str, float]:
    """What the main host brings under these names, for all; each must ask at the same point."""
    if jax.process_count() == 1:
        return dict(values)
    from jax.experimental import multihost_utils

    # As whole numbers: jax would round float64 to float32.
    mine = np.array(list(values.values()), np.float64).view(np.int32)
    theirs = np.ascontiguousarray(multihost_utils.broadcast_one_to_all(mine)).view(np.float64)
    return dict(zip(values, theirs.tolist(), strict=True))


def largest_on_hosts(value: int) -> int:
    """The largest of what the hosts bring, for all of them; each must ask at the same point."""
    if jax.process_count() == 1:
        return value
    from jax.experimental import multihost_utils

    return int(np.max(multihost_utils.process_allgather(np.int32(value))))
