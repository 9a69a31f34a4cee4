"""Commands in pieces: what is done is not done again, what runs too long is stopped and goes on."""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nmt_ls.bench.gpu.stages import OutOfTime, Pieces, Step, StepFailed


def python(name: str, code: str, **options) -> Step:
    return Step(name, [sys.executable, "-c", code], **options)


def test_a_step_is_done_once(tmp_path: Path) -> None:
    lines = tmp_path / "lines"
    step = python("one", f"open({str(lines)!r}, 'a').write('x')")
    Pieces(tmp_path, 60).run(step)
    again = Pieces(tmp_path, 60)
    assert again.is_done("one")
    again.run(step)
    assert again.begun == 0
    assert lines.read_text() == "x"
    assert len(again.record("one")["seconds"]) == 1


def test_what_fails_says_where_its_log_is(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, 60)
    with pytest.raises(StepFailed, match=r"status 3; .*bad\.log"):
        pieces.run(python("bad", "import sys; print('why'); sys.exit(3)"))
    assert (tmp_path / "logs" / "bad.log").read_text() == "why\n"
    assert not pieces.is_done("bad")


CODE = """
import pathlib, signal, sys, time
mark = pathlib.Path({mark!r})
def stop(number, frame):
    mark.write_text("checkpoint")
    sys.exit(143)
signal.signal(signal.SIGTERM, stop)
print("begun", flush=True)
if mark.exists():
    sys.exit(0)
time.sleep(60)
"""


def test_a_long_step_goes_on_in_the_next_call(tmp_path: Path) -> None:
    code = CODE.format(mark=str(tmp_path / "mark"))
    step = python("long", code, continues=True)
    began = time.monotonic()
    pieces = Pieces(tmp_path, 4)
    with pytest.raises(OutOfTime):
        pieces.run(step)
    assert pieces.progressed
    assert time.monotonic() - began < 6
    assert (tmp_path / "mark").read_text() == "checkpoint"
    later = Pieces(tmp_path, 20)
    later.run(step)
    assert later.is_done("long")
    assert len(later.record("long")["seconds"]) == 2


def test_what_hears_no_signal_is_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    began = time.monotonic()
    with pytest.raises(OutOfTime):
        Pieces(tmp_path, 3).run(python("deaf", code, continues=True))
    assert time.monotonic() - began < 6


def test_what_begins_anew_and_needs_more_than_a_call_fails(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, 2)
    slow = python("slow", "import time; time.sleep(60)")
    with pytest.raises(StepFailed, match="--seconds"):
        pieces.run(slow)
    assert pieces.has_failed("slow") and pieces.progressed  # that is known now
    again = Pieces(tmp_path, 2)
    with pytest.raises(StepFailed, match="--seconds"):
        again.run(slow)
    assert not again.progressed


def test_what_begins_anew_waits_for_a_call_of_its_own(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, 30)
    pieces.run(python("first", ""))
    pieces.end = time.monotonic() + 10  # less than half is left
    with pytest.raises(OutOfTime):
        pieces.run(python("second", ""))
    assert not pieces.is_done("second")
    pieces.run(python("third", "", continues=True))
    assert pieces.is_done("third")


def test_a_retry_that_is_cut_off_has_failed_all_the_same(tmp_path: Path) -> None:
    """Else the next call would do it before others, and its caller would call for ever."""
    slow = "import time; time.sleep(60)"
    for name, continues in (("anew", False), ("on", True)):
        (tmp_path / name / "steps").mkdir(parents=True)
        (tmp_path / name / "steps" / "tried.json").write_text('{"failed": true}')
        pieces = Pieces(tmp_path / name, 2)
        pieces.begun = 1  # not the call's first, which would have all of it
        with pytest.raises(OutOfTime):
            pieces.run(python("tried", slow, continues=continues))
        # What goes on where it was has got further.
        assert pieces.has_failed("tried") != continues and pieces.progressed == continues


def test_variables_reach_the_command(tmp_path: Path) -> None:
    pieces = Pieces(tmp_path, 60, {"NMT_LS_TRIED": "7", "NMT_LS_TOO": "7"}, "a device")
    code = "import os; print(os.environ['NMT_LS_TRIED'], os.environ['NMT_LS_TOO'])"
    pieces.run(python("told", code, variables={"NMT_LS_TOO": "8"}))
    assert (tmp_path / "logs" / "told.log").read_text() == "7 8\n"
    record = json.loads((tmp_path / "steps" / "told.json").read_text())
    assert record["done"] and record["devices"] == ["a device"]


@pytest.mark.parametrize("ends", ["sys.exit()", "time.sleep(60)"])
def test_a_command_leaves_no_process_behind(tmp_path: Path, ends: str) -> None:
    """A peer that a benchmark has started would compute beside the next one."""
    child = f"import subprocess, sys, time; subprocess.Popen({['sleep', '60']}, stdout=sys.stdout)"
    with contextlib.suppress(OutOfTime, StepFailed):
        Pieces(tmp_path, 4).run(python("parent", f"{child}; print('begun', flush=True); {ends}"))
    assert "begun" in (tmp_path / "logs" / "parent.log").read_text()
    assert _is_closed(tmp_path / "logs" / "parent.log")


@pytest.mark.skipif(sys.platform != "linux", reason="PR_SET_PDEATHSIG is Linux's")
def test_a_command_ends_with_a_call_that_is_killed(tmp_path: Path) -> None:
    """It may say so: `train` writes a checkpoint."""
    mark, log = tmp_path / "mark", tmp_path / "logs" / "long.log"
    command = python("long", CODE.format(mark=str(mark))).command
    code = (
        "from pathlib import Path; from nmt_ls.bench.gpu.stages import Pieces, Step; "
        f"Pieces(Path({str(tmp_path)!r}), 60).run(Step('long', {command!r}))"
    )
    call = subprocess.Popen([sys.executable, "-c", code])
    _until(lambda: log.exists() and "begun" in log.read_text())
    call.kill()
    call.wait()
    assert _is_closed(log) and mark.read_text() == "checkpoint"


def _is_closed(log: Path) -> bool:
    return _until(lambda: str(log) not in _open_files())


def _until(holds: Callable[[], bool]) -> bool:
    """Whether it holds within ten seconds."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and not holds():
        time.sleep(0.05)
    return holds()


def _open_files() -> set[str]:
    """Of all processes that may be looked at."""
    found = set()
    for link in Path("/proc").glob("[0-9]*/fd/1"):
        with contextlib.suppress(OSError):
            found.add(os.readlink(link))
    return found
