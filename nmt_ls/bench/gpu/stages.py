"""Commands that are run in pieces: each call has so many seconds, and the next goes on.

A step is one command. It is done when it has ended with status 0; what is done is kept in one JSON
file per step and not run again. As a call's time runs out its command gets SIGTERM, on which
`train` and `sweep` write a checkpoint, and some time later SIGKILL.
"""

import contextlib
import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from nmt_ls.outputs import write_beside

_GRACE = 60.0
"""Seconds between SIGTERM and SIGKILL: the step that is under way, and a checkpoint."""


class Step(NamedTuple):
    """One command."""

    name: str
    """Of its files; no other step has it."""
    command: Sequence[str]
    continues: bool = False
    """Whether it goes on where it was when it is run again; otherwise it begins anew."""


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
    """

    def __init__(self, folder: Path, seconds: float, environment: dict[str, str] | None = None):
        self.folder, self.seconds = folder, seconds
        self.end = time.monotonic() + seconds
        self.environment = {**os.environ, **(environment or {})}
        self.begun = 0
        """Commands that this call has started."""
        self.progressed = False
        """Whether this call has brought a step to its end, or one further that goes on later."""
        for name in ("steps", "logs"):
            (folder / name).mkdir(parents=True, exist_ok=True)

    def is_done(self, name: str) -> bool:
        """Whether a step has ended well, in this call or in an earlier one."""
        return self.record(name)["done"]

    def record(self, name: str) -> dict:
        """What is known of a step: done, and the seconds of each time that it ran."""
        path = self._record_path(name)
        if not path.exists():
            return {"done": False, "seconds": []}
        return json.loads(path.read_text(encoding="utf-8"))

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
        record = self.record(step.name)
        record["seconds"].append(time.monotonic() - began)
        record["done"] = status == 0
        write_beside(self._record_path(step.name), json.dumps(record) + "\n")
        if status == 0:
            self.progressed = True
            return
        if time.monotonic() - began < left - grace:
            raise StepFailed(f"{step.name}: status {status}; {self._log_path(step.name)} says why")
        if whole and not step.continues:
            raise StepFailed(
                f"{step.name} takes longer than the {self.seconds:.0f} s of a call; give it more "
                "with --seconds"
            )
        self.progressed |= step.continues
        raise OutOfTime

    def _run(self, step: Step, seconds: float, grace: float) -> int:
        with self._log_path(step.name).open("ab") as log:
            process = subprocess.Popen(
                list(step.command),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self.environment,
            )
            with _stopped_with_us(process, grace):
                try:
                    return process.wait(seconds)
                except subprocess.TimeoutExpired:
                    return _stop(process, grace)

    def _record_path(self, name: str) -> Path:
        return self.folder / "steps" / f"{name}.json"

    def _log_path(self, name: str) -> Path:
        return self.folder / "logs" / f"{name}.log"


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
