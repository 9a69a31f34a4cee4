"""Two processes never train in one run directory."""

import errno
import fcntl
import logging
import os
from pathlib import Path

import pytest
from tiny import tiny_config, tiny_data

from nmt_ls.errors import UserError
from nmt_ls.training.groups import Member
from nmt_ls.training.lock import LOCK, alone_in
from nmt_ls.training.opening import open_run
from nmt_ls.training.population import fit_population
from nmt_ls.training.trainer import fit


def test_one_at_a_time(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    with alone_in([a]):
        refused = pytest.raises(UserError, match=f"another process is training in {a}; wait")
        with refused, alone_in([b, a]):
            raise AssertionError
        with alone_in([b]):
            pass
    (a / LOCK).touch()  # left by who was killed
    with alone_in([a, b]):
        pass


def test_where_nothing_can_be_locked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(fcntl, "flock", none)
    (tmp_path / LOCK).touch()  # left by a host that died
    with caplog.at_level(logging.INFO, "nmt_ls"), alone_in([tmp_path]):
        assert "cannot be locked ([Errno" in caplog.text


def test_who_is_refused_by_other_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def held(*_: object) -> None:
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(fcntl, "flock", held)
    with pytest.raises(UserError, match="another process is training"), alone_in([tmp_path]):
        raise AssertionError


def test_training_is_refused_beside_another(tmp_path: Path) -> None:
    config = tiny_config(tmp_path)
    data = tiny_data(config)
    runs = [tmp_path / "a", tmp_path / "b"]
    open_run(runs[1], config, data)
    (runs[1] / "metrics.jsonl").write_text('{"step": 7}\n')
    with alone_in([runs[1]]):
        with pytest.raises(UserError, match="another process"):
            fit(config, data, runs[1])
        with pytest.raises(UserError, match="another process"):
            fit_population([Member(config, data, run) for run in runs])
    assert (runs[1] / "metrics.jsonl").read_text() == '{"step": 7}\n'
    open_run(runs[0], config, data)  # with no more than a lock in it
