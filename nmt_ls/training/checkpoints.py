"""Checkpoints: orbax directories `checkpoints/STEP/`, whole or absent, checked when read."""

import errno
import logging
import os
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from nmt_ls.errors import UserError
from nmt_ls.parallel import is_main, to_host

log = logging.getLogger("nmt_ls")

Tree = Any


_NOT_THE_FILES = (
    errno.EMFILE, errno.ENFILE, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM, errno.ENOMEM,
)  # fmt: skip
"""Errors of reading that say nothing about what is in a file: a later try may go well."""


def checksum(tree: Tree) -> int:
    """CRC-32 of all leaves: orbax notices a torn file, but not a flipped bit in an array."""
    value = 0
    for leaf in jax.tree.leaves(tree):
        value = zlib.crc32(np.ascontiguousarray(leaf).tobytes(), value)
    return value


def _raise_if_not_the_files(error: Exception) -> None:
    """Raise an error of reading again, if it is not for what the files hold."""
    if isinstance(error, MemoryError):
        raise error
    number = error.errno if isinstance(error, OSError) else None
    if number in _NOT_THE_FILES:
        raise error
    for number in _NOT_THE_FILES:  # tensorstore's are ValueErrors that end in the system's words
        if os.strerror(number) in str(error):
            raise OSError(number, " ".join(str(error).split())[:300]) from error


def _alone() -> ocp.options.MultiprocessingOptions:
    """State is replicated, so one host writes and reads for itself and waits for nobody."""
    here = jax.process_index()
    return ocp.options.MultiprocessingOptions(primary_host=here, active_processes={here})


def _quiet_options() -> ocp.CheckpointManagerOptions:
    return ocp.CheckpointManagerOptions(
        max_to_keep=None, create=False, multiprocessing_options=_alone()
    )


def _single() -> ocp.Checkpointer:
    """For a checkpoint that is no step of a run."""
    options = _alone()
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=options)
    )
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def steps_in(directory: Path) -> list[int]:
    """Steps that have a checkpoint in `RUN/checkpoints`, ascending; none without that folder."""
    if not directory.is_dir():
        return []
    return sorted(int(p.name) for p in directory.iterdir() if p.name.isdigit())


class Checkpoints:
    """The checkpoints of a run. Writing happens beside training; reading takes the newest whole.

    Args:
      directory: `RUN/checkpoints`.
    """

    def __init__(self, directory: Path):
        self.directory = directory.absolute()
        self.directory.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(self.directory, options=_quiet_options())

    def clear_unfinished(self) -> None:
        """Delete what killed processes left half-written. Only for who writes here."""
        if is_main():
            for leftover in self.directory.glob("*.orbax-checkpoint-tmp*"):
                shutil.rmtree(leftover, ignore_errors=True)

    def steps(self) -> list[int]:
        """Steps that have a checkpoint, ascending."""
        # The manager's own list has one that is still being written; on disk it has another name.
        return steps_in(self.directory)

    def save(self, step: int, state: Tree, host: Mapping[str, Any]) -> None:
        """Write a state (replicated arrays) and plain host-side values; returns before it is done.

        Only the main host writes.
        """
        if not is_main():
            return
        # Our own copy: the next step donates these buffers.
        copy = jax.tree.map(np.array, to_host(state))
        record = {**host, "checksum": checksum(copy)}
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(copy), host=ocp.args.JsonSave(record)
            ),
            force=True,
        )

    def delete(self, steps: set[int]) -> None:
        """Delete these checkpoints, which are whole. Only for who writes here."""
        for step in sorted(steps):
            self._manager.delete(step)

    def restore(self, like: Tree) -> tuple[int, Tree, dict[str, Any]] | None:
        """(step, state as numpy arrays, host values) of the newest whole checkpoint.

        Damaged ones are left aside with a warning, under a name that is not a step's; but not
        before an older one is known to be whole.

        Returns:
          None if there is no checkpoint at all.

        Raises:
          UserError: there are some, and none can be read; they stay where they are.
          OSError, MemoryError: the system cannot read now, whatever is in the files.
        """
        damaged: dict[int, str] = {}
        for step in reversed(self.steps()):
            found = self._whole(step, like)
            if isinstance(found, str):
                damaged[step] = found
                continue
            for torn, reason in damaged.items():
                self._set_aside(torn, reason)
            return step, *found
        if damaged:
            steps = ", ".join(map(str, sorted(damaged)))
            raise UserError(
                f"no checkpoint in {self.directory} can be read (there are {steps};"
                f" {next(iter(damaged.values()))})\n"
                "put whole ones in their place, or train in another --run-dir; nothing was changed"
            )
        return None

    def restore_step(self, step: int, like: Tree) -> tuple[Tree, dict[str, Any]] | None:
        """(state as numpy arrays, host values) of one checkpoint; None if it was damaged.

        See `restore`; the run has another one that is whole.
        """
        found = self._whole(step, like)
        if isinstance(found, str):
            self._set_aside(step, found)
            return None
        return found

    def _whole(self, step: int, like: Tree) -> tuple[Tree, dict[str, Any]] | str:
        """What a checkpoint holds, or what is wrong with it."""
        target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), like)
        try:
            return self._read(step, target)
        except Exception as error:  # whatever tensorstore, json or orbax make of torn files
            _raise_if_not_the_files(error)
            return " ".join(str(error).split())[:200]

    def _set_aside(self, step: int, reason: str) -> None:
        log.warning("checkpoint %d is damaged (%s); using an older one", step, reason)
        if is_main():
            aside = self.directory / f"damaged-{step}"
            shutil.rmtree(aside, ignore_errors=True)
            (self.directory / str(step)).rename(aside)
            self._manager.reload()

    def _read(self, step: int, target: Tree | None) -> tuple[Tree, dict[str, Any]]:
        restored = self._manager.restore(
            step,
            args=ocp.args.Composite(
                state=ocp.args.StandardRestore(target), host=ocp.args.JsonRestore()
            ),
        )
        state = jax.tree.map(np.asarray, restored["state"])
        host = dict(restored["host"])
        if host.pop("checksum") != checksum(state):
            raise ValueError("checksum differs")
        return state, host

    def host(self, step: int) -> dict[str, Any]:
        """The host-side values saved at a step.

        Raises:
          UserError: the checkpoint is damaged.
        """
        only = ocp.args.Composite(host=ocp.args.JsonRestore())
        try:
            host = dict(self._manager.restore(step, args=only)["host"])
        except Exception as error:
            _raise_if_not_the_files(error)
            raise UserError(
                f"checkpoint {self.directory / str(step)} is damaged; `nmt-ls train` goes on from"
                " the one before, if there is one"
            ) from error
        return {k: v for k, v in host.items() if k != "checksum"}

    def params(self, step: int) -> dict[str, np.ndarray]:
        """The parameters to evaluate at a step: the moving average where one was kept."""
        try:
            state, _ = self._read(step, None)
        except Exception as error:
            _raise_if_not_the_files(error)
            raise UserError(
                f"checkpoint {self.directory / str(step)} is damaged; choose another with"
                f" --checkpoint (there are {', '.join(map(str, self.steps()))})"
            ) from error
        return state.get("ema") or state["params"]

    def wait(self) -> None:
        """Until what was saved is on disk. Raises what went wrong with it."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        self.wait()
        self._manager.close()


def save_average(directory: Path, params: Mapping[str, np.ndarray], steps: list[int]) -> None:
    """Write `checkpoints/average/`: beside first, then renamed over an older one."""
    directory = directory.absolute()
    final, beside = directory / "average", directory / "average.tmp"
    shutil.rmtree(beside, ignore_errors=True)
    with _single() as writer:
        writer.save(
            beside,
            args=ocp.args.Composite(
                state=ocp.args.StandardSave({"params": dict(params)}),
                host=ocp.args.JsonSave({"steps": steps, "checksum": checksum(dict(params))}),
            ),
        )
    old = directory / "average.old"
    shutil.rmtree(old, ignore_errors=True)
    if final.exists():
        final.rename(old)
    beside.rename(final)
    shutil.rmtree(old, ignore_errors=True)


def load_average(directory: Path) -> tuple[dict[str, np.ndarray], list[int]]:
    """(parameters, the steps they are the mean of) of `checkpoints/average/`."""
    path = directory.absolute() / "average"
    try:
        with _single() as reader:
            restored = reader.restore(
                path,
                args=ocp.args.Composite(
                    state=ocp.args.StandardRestore(), host=ocp.args.JsonRestore()
                ),
            )
        params = {k: np.asarray(v) for k, v in restored["state"]["params"].items()}
        if restored["host"]["checksum"] != checksum(params):
            raise ValueError("checksum differs")
    except Exception as error:
        _raise_if_not_the_files(error)
        raise UserError(f"{path} is damaged; make it anew with `nmt-ls average`") from error
    return params, restored["host"]["steps"]


def average_steps(directory: Path) -> list[int]:
    """The steps that `checkpoints/average/` is the mean of; none if that cannot be read."""
    path = directory.absolute() / "average"
    try:
        with _single() as reader:
            restored = reader.restore(path, args=ocp.args.Composite(host=ocp.args.JsonRestore()))
        return restored["host"]["steps"]
    except Exception as error:  # whatever orbax and json make of torn files
        log.warning("%s is damaged (%s)", path, " ".join(str(error).split())[:200])
        return []


def set_average_aside(directory: Path) -> Path:
    """Give `checkpoints/average/` a name under which nothing looks for it; returns that."""
    directory = directory.absolute()
    steps = "-".join(map(str, average_steps(directory)))
    aside = directory / f"average-of-{steps or 'unknown'}"
    shutil.rmtree(aside, ignore_errors=True)
    return (directory / "average").rename(aside)


def mean_of_params(checkpoints: Checkpoints, steps: list[int]) -> dict[str, np.ndarray]:
    """Uniform mean of the parameters at these steps, summed in float64."""
    total: dict[str, np.ndarray] = {}
    for step in steps:
        for name, value in checkpoints.params(step).items():
            wide = value.astype(np.float64)
            total[name] = total[name] + wide if name in total else wide
    return {name: (value / len(steps)).astype(np.float32) for name, value in total.items()}
