"""Locks among processes: refused, waited for, and given back by whoever is killed."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from nmt_ls.file_lock import HeldElsewhere, file_lock

HOLDER = """
import sys, time
from nmt_ls.file_lock import file_lock
with file_lock(sys.argv[1], wait=False):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_process_gives_it_back(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, path], stdout=subprocess.PIPE)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(HeldElsewhere), file_lock(path, wait=False):
            raise AssertionError
        killed: list[float] = []

        def kill() -> None:
            time.sleep(0.2)
            killed.append(time.monotonic())
            holder.kill()

        threading.Thread(target=kill).start()
        with file_lock(path, wait=True):
            assert killed and killed[0] <= time.monotonic()
    finally:
        holder.kill()
        holder.communicate()
    with file_lock(path, wait=False):
        assert path.exists()


def test_no_place_for_a_lock(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), file_lock(tmp_path / "no" / "lock", wait=True):
        raise AssertionError
