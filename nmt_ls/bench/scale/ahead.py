"""The training step compiled for accelerators that are not at hand, by their own compilers.

The CUDA plugin of jax (`jax-cuda12-plugin`, with `nvidia-cuda-nvcc-cu12`) and `libtpu` compile
without a device, from a description of one. Nothing can be run, nor timed: GPU kernels are chosen
without trying them out. What fits, what is sent between devices, and that it compiles at all, is
there to be seen.
"""

import contextlib
import importlib.util
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax._src.cudnn.fused_attention_stablehlo as cudnn
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from nmt_ls.bench.random_batch import PAD, random_batch
from nmt_ls.bench.scale.collectives import begun_early, collectives
from nmt_ls.config import Config, LossConfig
from nmt_ls.errors import UserError
from nmt_ls.model import DropoutRates, attention
from nmt_ls.parallel import AXIS
from nmt_ls.training.objective import LossData
from nmt_ls.training.optimizer import Hyperparameters
from nmt_ls.training.step import initial_state, make_step

_BOS = 2

_H100 = """
gpu_device_info {
  threads_per_warp: 32, threads_per_block_limit: 1024, threads_per_core_limit: 2048
  core_count: 132, fpus_per_core: 128, clock_rate_ghz: 1.98
  registers_per_core_limit: 65536, registers_per_block_limit: 65536
  shared_memory_per_block: 49152, shared_memory_per_block_optin: 232448
  shared_memory_per_core: 233472, l2_cache_size: 52428800
  block_dim_limit_x: 2147483647, block_dim_limit_y: 65535, block_dim_limit_z: 65535
  device_memory_size: 84929347584, memory_bandwidth: 3352320000000
  cuda_compute_capability { major: 9 }
}
platform_name: "CUDA"
runtime_version { major: 12, minor: 8 }
dnn_version_info { major: 9, minor: 7 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""What CUDA says of the card, in XLA's words (its `GpuTargetConfigProto`)."""

_V5E = {
    1: "1x1", 4: "2x2", 8: "2x4", 16: "4x4", 32: "4x8", 64: "8x8", 128: "8x16", 256: "16x16",
}  # fmt: skip
"""Slices of so many chips; libtpu describes others too, which cannot be had."""

_COMPILERS = {
    "h100": ("jax-cuda12-plugin nvidia-cuda-nvcc-cu12", ("jax_cuda12_plugin", "jax_cuda13_plugin")),
    "v5e": ("libtpu", ("libtpu",)),
}
"""What brings a target's compiler: to be installed, and modules of which it has one."""

TARGETS = tuple(_COMPILERS)

MEMORY = {"h100": 0.75 * 80e9, "v5e": 16e9}
"""Bytes of a device that jax takes, by its maker's figure: of a GPU's three quarters, unless
XLA_PYTHON_CLIENT_MEM_FRACTION says otherwise. The runtime keeps a little of it."""


class Compiled(NamedTuple):
    """A step of one device, as it was compiled."""

    devices: int
    rows: int
    """Of source and target on each."""
    seconds: float
    """Of compilation."""
    state_bytes: int
    """Parameters and what the optimizer keeps."""
    temporary_bytes: int
    """Activations, gradient, logits: whatever lives during the step alone."""
    needed_bytes: int
    """Both, the device's share of the batch, and the program where it is in the device's memory;
    what libraries and the runtime keep for themselves is not known."""
    all_reduces: int
    all_reduces_begun_early: int | None
    """Before the last product of the backward pass; None where that cannot be told: of TPUs, and
    where all products are in a loop (`training.accumulation`)."""
    all_reduced_bytes: int
    kernels_of_cudnn: int


@contextlib.contextmanager
def pretended(backend: str) -> Iterator[None]:
    """While the block runs programs are traced as on `gpu` (with cuDNN's attention) or `tpu`."""
    with contextlib.ExitStack() as stack:

        def become(where: Any, name: str, answer: Any) -> None:
            stack.enter_context(mock.patch.object(where, name, lambda *_: answer))

        become(jax, "default_backend", backend)
        become(attention, "_has_flash_kernel", backend == "gpu")
        become(cudnn, "check_cudnn_version", 90700)
        become(cudnn, "check_compute_capability", True)
        become(cudnn, "is_cuda_compute_capability_equal", False)
        yield


def devices_of(target: str, count: int) -> Sequence[Any]:
    """Devices to compile for, none of which need be there.

    Args:
      target: of `TARGETS`.
      count: so many; of v5e one of the slices that there are.

    Raises:
      UserError: no slice has so many, or the compiler is not installed or refuses.
    """
    if target == "v5e" and count not in _V5E:
        raise UserError(
            f"{count} devices of v5e make no slice; --devices can be {', '.join(map(str, _V5E))}"
        )
    try:
        if target == "h100":
            described = topologies.get_topology_desc(
                "", platform="cuda", target_config=_H100, topology=f"1x1x{count}"
            )
        else:
            # A host has four chips, or the only one.
            host = {"chips_per_host_bounds": (1, 1, 1)} if count == 1 else {}
            described = topologies.get_topology_desc(
                platform="tpu", topology_name=f"v5e:{_V5E[count]}", **host
            )
    except Exception as error:  # whatever plugins make of what they lack
        why = f"{count} devices of {target} cannot be compiled for: {' '.join(str(error).split())}"
        packages, modules = _COMPILERS[target]
        if not any(map(importlib.util.find_spec, modules)):
            why += f"\n{_way_out(packages)}"
        raise UserError(why) from error
    return described.devices


def _way_out(packages: str) -> str:
    return (
        f"its compiler comes with `pip install {packages}`, of the versions that go with jax "
        f"{jax.__version__}, in an environment of its own"
    )


def _check_loss(loss: LossConfig) -> None:
    for setting, plain, run in (
        ("kind", "label_smoothing", "teacher_run"),
        ("graduated", "none", "graduated_run"),
    ):
        if getattr(loss, run):
            raise UserError(
                f"a loss with a teacher (loss.{setting}={getattr(loss, setting)}) is not compiled "
                f"ahead\nleave it out: --set loss.{setting}={plain} --set loss.{run}="
            )


def compile_step(
    config: Config, devices: Sequence[Any], vocab_size: int, *, length: int = 25
) -> Compiled:
    """Compile a configuration's training step.

    Args:
      config: model, loss and training; `batch_tokens` is shared out over the devices.
      devices: from `devices_of`, or real ones.
      vocab_size: of both sides.
      length: of each source and target, tokens.

    Raises:
      UserError: the loss has a teacher, the assembler of GPU programs is not installed, or XLA for
        TPUs finds no room in their memory (that for GPUs goes on: `Compiled.needed_bytes` says it).
    """
    _check_loss(config.loss)
    model, training, sizes = config.model, config.training, (vocab_size, vocab_size)
    parts = training.accumulation
    rows = max(1, training.batch_tokens // length // len(devices) // parts)
    backend = {"cuda": "gpu", "gpu": "gpu"}.get(devices[0].platform, devices[0].platform)
    mesh = Mesh(np.array(devices), (AXIS,))

    def placed(tree: Any, *spec: str) -> Any:
        sharding = NamedSharding(mesh, PartitionSpec(*spec))
        return jax.tree.map(
            lambda x: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding), tree
        )

    step = make_step(model, config.loss, training, sizes, _BOS, PAD)

    def on_each(state: Any, batch: Any, *scalars: Any) -> Any:
        return step(state, jax.tree.map(lambda x: x[0], batch), *scalars)

    state = jax.eval_shape(lambda: initial_state(model, training, sizes, 0))
    batch = random_batch(0, len(devices) * parts * rows, vocab_size, length=length)
    split = jax.tree.map(lambda x: x.reshape(len(devices), parts, rows, *x.shape[1:]), batch)
    rates = DropoutRates(model.dropout, model.attention_dropout, model.activation_dropout)
    numbers = Hyperparameters.of(training)
    scalars = (*jax.tree.map(np.float32, (0.1, rates)), LossData(), numbers)
    scalars = jax.tree.map(np.asarray, (np.uint32(0), *scalars))
    whole = PartitionSpec()
    laid_out = jax.shard_map(
        on_each, mesh=mesh, in_specs=(whole, PartitionSpec(AXIS), *(whole for _ in scalars)),
        out_specs=whole, check_vma=False,
    )  # fmt: skip
    # Triton's products are tried out on the device; without one some of them do not compile.
    options = {"xla_gpu_enable_triton_gemm": False} if backend == "gpu" else None
    with pretended(backend) if backend != "cpu" else contextlib.nullcontext():
        arguments = (placed(state), placed(split, AXIS), *map(placed, scalars))
        lowered = jax.jit(laid_out, donate_argnums=0).trace(*arguments).lower()
        began = time.perf_counter()
        try:
            compiled = lowered.compile(compiler_options=options)
        except jax.errors.JaxRuntimeError as error:
            if "No PTX compilation provider" in str(error):
                packages, _ = _COMPILERS["h100"]
                why = f"there is no ptxas, which GPU programs need\n{_way_out(packages)}"
                raise UserError(why) from error
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            raise UserError(
                f"it does not fit into one of {len(devices)} devices "
                f"({' '.join(str(error).split())[:300]})\n"
                "lower training.batch_tokens, or raise training.accumulation"
            ) from error
        seconds = time.perf_counter() - began
    text = compiled.as_text() or ""
    sent, memory = collectives(text), compiled.memory_analysis()
    return Compiled(
        devices=len(devices),
        rows=rows,
        seconds=seconds,
        state_bytes=sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(state)),
        temporary_bytes=memory.temp_size_in_bytes,
        # The new state takes the place of the old one, which both arguments and outputs count.
        needed_bytes=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes,
        all_reduces=sent.all_reduces,
        all_reduces_begun_early=begun_early(text),
        all_reduced_bytes=sent.bytes,
        kernels_of_cudnn=text.count('custom_call_target="__cudnn$fmha'),
    )
