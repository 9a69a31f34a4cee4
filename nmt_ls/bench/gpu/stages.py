"""Commands that are run in pieces: each call has so many seconds, and the next goes on.

A step is one command. It is done when it has ended with status 0; what is done is kept in one JSON
file per step and not run again. As a call's time runs out its command gets SIGTERM, on which
`train` and `sweep` write a checkpoint, and some time later SIGKILL. On Linux it gets SIGTERM too
when the call itself is killed: it would compute beside the next one.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nmt_ls.outputs import write_beside

_GRACE = 60.0
"""Seconds between SIGTERM and SIGKILL: the step that is under way, and a checkpoint."""


_ENDS_WITH_US = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG, which exec keeps
if os.getppid() == int(sys.argv[1]):  # else it is too late for the signal
    os.execvp(sys.argv[2], sys.argv[2:])
"""
"""Becomes a command that gets SIGTERM when we end, even by SIGKILL. Processes that the command has
started do not get it: those of sweeps and benchmarks end with the process that started them. Not by
`preexec_fn`, which forks a process that may have threads."""


class Step(NamedTuple):
    """One command."""

    name: str
    """Of its files; no other step has it."""
    command: Sequence[str]
    continues: bool = False
    """Whether it goes on where it was when it is run again; otherwise it begins anew."""
    variables: Mapping[str, str] = {}
    """Of its environment, besides those of all."""


class StepFailed(Exception):
    """A command ended badly; its log says why."""


class OutOfTime(Exception):
    """The call's time is over; another one goes on."""


class Pieces:
    """Runs steps within the time of this call.

    Args:
      folder: `steps/` and `logs/` are made in it.
      seconds: that this call may take, from now on.
      environment: variables of the commands, besides ours.
      device: what the commands compute on, for their records.
    """

    def __init__(
        self,
        folder: Path,
        seconds: float,
        environment: Mapping[str, str] | None = None,
        device: str = "",
    ):
        self.folder, self.seconds, self.device = folder, seconds, device
        self.end = time.monotonic() + seconds
        self.environment = {**os.environ, **(environment or {})}
        self.begun = 0
        """Commands that this call has started."""
        self.progressed = False
        """Whether this call has brought a step further: to its end, for the first time to a bad
        one, or, of those that go on later, at all."""
        for name in ("steps", "logs"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def is_done(self, name: str) -> bool:
        """Whether a step has ended well, in this call or in an earlier one."""
        return self.record(name)["done"]

    def has_failed(self, name: str) -> bool:
        """Whether a step ended badly when it was last run; that it was cut off says nothing of one
        that begins anew."""
        return self.record(name)["failed"]

    def record(self, name: str) -> dict:
        """Done, failed, and of each time that the step ran its seconds and device."""
        path = self._record_path(name)
        found = {"done": False, "failed": False, "seconds": [], "devices": []}
        if path.exists():
            found |= json.loads(path.read_text(encoding="utf-8"))
        return found

    def run(self, step: Step) -> None:
        """Do a step, or go on with it; nothing if it is done.

        Raises:
          OutOfTime: it is not done yet.
          StepFailed: it ended badly, or a whole call is too short for it.
        """
        if self.is_done(step.name):
            return
        left = self.end - time.monotonic()
        grace = min(_GRACE, self.seconds / 4)
        # What begins anew each time needs a call of its own rather than what is left of this one.
        if left <= grace or (self.begun and not step.continues and left < self.seconds / 2):
            raise OutOfTime
        whole = not self.begun
        self.begun += 1
        began = time.monotonic()
        status = self._run(step, left - grace, grace)
        taken = time.monotonic() - began
        why = ""
        if status and taken < left - grace:
            why = f"{step.name}: status {status}; {self._log_path(step.name)} says why"
        elif status and whole and not step.continues:
            why = f"{step.name} takes longer than the {self.seconds:.0f} s of a call; give it more "
            why += "with --seconds"
        record = self.record(step.name)
        further = not record["failed"] if why else status == 0 or step.continues
        self.progressed |= further
        record["seconds"].append(taken)
        record["devices"].append(self.device)
        # One that begins anew and was cut off is no further than when it failed.
        still = status != 0 and not step.continues and record["failed"]
        record |= {"done": status == 0, "failed": bool(why) or still}
        write_beside(self._record_path(step.name), json.dumps(record) + "\n")
        if why:
            raise StepFailed(why)
        if status:
            raise OutOfTime

    def _run(self, step: Step, seconds: float, grace: float) -> int:
        with self._log_path(step.name).open("ab") as log:
            process = subprocess.Popen(
                _ending_with_us(step.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**self.environment, **step.variables},
                start_new_session=True,
            )
            try:
                with _stopped_with_us(process, grace):
                    try:
                        return process.wait(seconds)
                    except subprocess.TimeoutExpired:
                        return _stop(process, grace)
            finally:
                # Processes that it has left behind would compute beside the next step.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _record_path(self, name: str) -> Path:
        return self.folder / "steps" / f"{name}.json"

    def _log_path(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"


def _ending_with_us(command: Sequence[str]) -> list[str]:
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, "-ISc", _ENDS_WITH_US, str(os.getpid()), *command]


def _stop(process: subprocess.Popen, grace: float) -> int:
    """SIGTERM, later SIGKILL; not 0, for the time was over."""
    process.terminate()
    try:
        return process.wait(grace) or -signal.SIGTERM
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


@contextlib.contextmanager
def _stopped_with_us(process: subprocess.Popen, grace: float) -> Iterator[None]:
    """Whatever ends us while the block runs ends the process too."""
    try:
        yield
    except BaseException:
        _stop(process, grace)
        raise
