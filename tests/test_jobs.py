"""Processes side by side, and what becomes of them when nobody reads what they say."""

import signal
import sys

import pytest

from nmt_ls.study.jobs import JobFailed, run_jobs


class Closed:
    """A stderr whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


@pytest.fixture
def in_time():
    """What waits for ever is interrupted."""

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def saying(lines: int, status: int = 0) -> list[str]:
    """A program that says so many lines and ends."""
    code = f"import sys; sys.stderr.write('a line\\n' * {lines}); sys.exit({status})"
    return [sys.executable, "-S", "-c", code]


def test_lines_have_the_name_of_their_job(capsys, in_time):
    done = []
    run_jobs(["a", "b", "c"], lambda name: saying(2), 2, done.append)
    assert sorted(done) == ["a", "b", "c"]
    assert sorted(capsys.readouterr().err.splitlines()) == sorted(
        ["[a] a line", "[b] a line", "[c] a line"] * 2
    )


def test_jobs_end_though_nobody_reads(monkeypatch, in_time):
    """More lines than a pipe holds: the jobs do not stand still either."""
    monkeypatch.setattr(sys, "stderr", Closed())
    done = []
    run_jobs(["a", "b", "c"], lambda name: saying(20_000), 2, done.append)
    assert sorted(done) == ["a", "b", "c"]
    with pytest.raises(JobFailed) as failed:
        run_jobs(["a"], lambda name: saying(3, status=5), 1)
    assert failed.value.status == 5


def test_one_that_fails_keeps_no_other_from_its_work(in_time):
    done = []
    with pytest.raises(JobFailed, match="b ended with status 1"):
        run_jobs(["a", "b", "c", "d"], lambda name: saying(1, name == "b"), 1, done.append)
    assert done == ["a", "c", "d"]


def ended_by(number: int) -> list[str]:
    """A program that a signal ends."""
    return [sys.executable, "-S", "-c", f"import os; os.kill(os.getpid(), {int(number)})"]


@pytest.mark.parametrize(
    ("last", "status"),
    [
        (saying(1, 143), 143),
        (saying(1, 130), 130),
        (ended_by(signal.SIGTERM), -15),
    ],
    ids=["caught", "Ctrl-C", "ended"],
)
def test_after_one_was_asked_to_stop_nothing_is_begun(in_time, last, status):
    done = []
    with pytest.raises(JobFailed, match=f"b ended with status {status}") as failed:
        run_jobs(["a", "b", "c"], lambda name: last if name == "b" else saying(1), 1, done.append)
    assert done == ["a"] and failed.value.interrupted


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_one_that_is_killed_has_failed_by_itself(in_time, capsys, number):
    """As the system does where memory is short."""
    done = []
    with pytest.raises(JobFailed, match=f"b ended with status {-number}") as failed:
        run_jobs(
            ["a", "b", "c"],
            lambda name: ended_by(number) if name == "b" else saying(1),
            1,
            done.append,
        )
    assert done == ["a", "c"] and not failed.value.interrupted
    assert f"nmt-ls: b was ended by signal {int(number)} (" in capsys.readouterr().err
