"""What is said on stderr when nobody listens."""

import logging
import os
import signal
import subprocess
import sys

import pytest

from nmt_ls.messages import Handler
from nmt_ls.training.interruption import collect_signals

SAYS = """
import logging, sys
from nmt_ls.messages import Handler, tell
for _ in range(3):
    tell("a line")
    logging.getLogger().addHandler(Handler())
    logging.getLogger().warning("a warning")
sys.exit(130)
"""


def test_a_pipe_that_nobody_reads() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", SAYS], stderr=writer, check=False)
    os.close(writer)
    assert done.returncode == 130


@pytest.mark.parametrize("error", [BrokenPipeError, RuntimeError("reentrant call"), ValueError])
def test_a_signal_is_noted_all_the_same(monkeypatch: pytest.MonkeyPatch, error) -> None:
    class Gone:
        def write(self, *_: str) -> None:
            raise error

        flush = fileno = write

    with collect_signals() as received:
        monkeypatch.setattr(sys, "stderr", Gone())
        os.kill(os.getpid(), signal.SIGTERM)
        monkeypatch.undo()
    assert received == [signal.SIGTERM]


@pytest.mark.parametrize(("hosts", "end"), [(1, "this step,"), (2, "up to the next record, valid")])
def test_what_a_signal_waits_for(capsys: pytest.CaptureFixture, hosts: int, end: str) -> None:
    with collect_signals(hosts):
        os.kill(os.getpid(), signal.SIGTERM)
    assert end in capsys.readouterr().err


def test_other_errors_of_the_log_are_told(capsys: pytest.CaptureFixture) -> None:
    handler = Handler()
    handler.handle(logging.makeLogRecord({"msg": "%d", "args": ("no number",)}))
    assert "Logging error" in capsys.readouterr().err
