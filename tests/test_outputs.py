"""Outputs: whole or not there; links, pipes and devices stay what they are."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nmt_ls.decoding.files import read_lines, whole_lines
from nmt_ls.errors import UserError
from nmt_ls.outputs import destination, write_beside
from nmt_ls.training.interruption import Terminated, raising_terminated


def by_lines(path: Path, text: str) -> None:
    with whole_lines(path) as file:
        file.write(text)


WRITERS = pytest.mark.parametrize("write", [write_beside, by_lines])


@WRITERS
def test_a_file_is_replaced_whole(write, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_text("before")
    write(path, "after\n")
    assert path.read_text() == "after\n"
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


@WRITERS
def test_a_link_stays_one(write, tmp_path: Path) -> None:
    real, link = tmp_path / "real", tmp_path / "link"
    real.write_text("before")
    link.symlink_to(real)
    write(link, "after\n")
    assert link.is_symlink() and real.read_text() == "after\n"


@WRITERS
def test_a_pipe_is_written_and_stays_one(write, tmp_path: Path) -> None:
    pipe, got = tmp_path / "pipe", []
    os.mkfifo(pipe)
    reader = threading.Thread(target=lambda: got.append(pipe.read_text()), daemon=True)
    reader.start()
    write(pipe, "through\n")
    reader.join(timeout=10)
    assert got == ["through\n"] and pipe.is_fifo()


@WRITERS
def test_a_pipe_without_a_name_is_written(write) -> None:
    """`--output >(jq .)`: what /dev/fd/63 links to is no path."""
    end, begin = os.pipe()
    path = Path(f"/dev/fd/{begin}")
    assert destination(path) == path
    write(path, "through\n")
    assert os.read(end, 100) == b"through\n"
    os.close(end)
    os.close(begin)


@pytest.fixture
def hears_sigint():
    """A shell's background jobs, as this may be, begin with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize("sign", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize(("written", "kept"), [("one\ntw", "one\n"), ("x" * 10**5, None)])
def test_what_was_done_stays_in_whole_lines(
    sign, written: str, kept, tmp_path: Path, hears_sigint
) -> None:
    path, before = tmp_path / "out", signal.getsignal(signal.SIGTERM)
    path.write_text("before")

    def interrupted() -> None:
        with raising_terminated(), whole_lines(path) as file:
            file.write(written)
            os.kill(os.getpid(), sign)
            time.sleep(10)

    with pytest.raises((Terminated, KeyboardInterrupt)):
        interrupted()
    found = {p.name: p.read_text() for p in tmp_path.iterdir()}
    assert found == {"out": "before"} | ({"out.part": kept} if kept else {})
    assert signal.getsignal(signal.SIGTERM) is before


def test_sigterm_is_not_lost_where_no_exception_gets_out() -> None:
    class Collected:
        def __del__(self) -> None:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(1)

    def interrupted() -> None:
        with raising_terminated():
            Collected()
            time.sleep(10)

    began = time.monotonic()
    with pytest.raises(Terminated):
        interrupted()
    assert time.monotonic() - began < 10


def run_settings(stdout, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "nmt_ls.cli", "settings"],
        stdout=stdout, stderr=subprocess.PIPE, check=False,
        cwd=Path(__file__).parent.parent, env={**os.environ, **environment},
    )  # fmt: skip


def test_standard_output_is_utf_8_whatever_the_locale_says() -> None:
    found = run_settings(subprocess.PIPE, PYTHONIOENCODING="latin-1")
    assert found.returncode == 0, found.stderr
    assert "ε" in found.stdout.decode("utf-8")


def test_a_full_standard_output_is_a_plain_error() -> None:
    with open("/dev/full", "w") as full:
        found = run_settings(full)
    assert (found.returncode, found.stderr) == (1, b"nmt-ls: no space left on the disk\n")


@pytest.mark.parametrize("call", ["settings >&-", "settings <&- >&- 2>&-", "report nowhere 2>&-"])
def test_streams_that_are_closed_take_what_nobody_reads(call: str) -> None:
    found = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -m nmt_ls.cli {call}'],
        capture_output=True, check=False, cwd=Path(__file__).parent.parent,
    )  # fmt: skip
    assert found.returncode == (2 if "nowhere" in call else 0)
    assert found.stdout == found.stderr == b""


def test_what_no_output_can_be(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a folder; name a file"):
        destination(tmp_path)
    with pytest.raises(UserError, match="there is no folder .*nowhere; make it first"):
        destination(tmp_path / "nowhere" / "out")


def test_a_byte_order_mark_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "in"
    path.write_bytes(b"\xef\xbb\xbfone\n\xef\xbb\xbftwo\n")
    assert list(read_lines(path)) == ["one", "\ufefftwo"]
