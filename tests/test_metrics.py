"""metrics.jsonl: no step twice, also after a kill."""

import importlib.util
import json
import math
from pathlib import Path

import pytest

from nmt_ls.errors import UserError
from nmt_ls.training.metrics import MetricsLog, read_metrics


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    records = [{"step": 1, "loss": 0.1 + 0.2}, {"step": 2, "loss": 1e-30, "validation_bleu": 3.5}]
    for record in records:
        log.write(record)
    # Seen at once, not when the file is closed.
    assert read_metrics(path) == records
    log.sync()
    log.close()
    assert [json.loads(line) for line in path.read_text().splitlines()] == records


def test_what_came_after_the_checkpoint_is_forgotten(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    log = MetricsLog(path, 0)
    for step in range(1, 8):
        log.write({"step": step, "run": 1})
    log.close()
    again = MetricsLog(path, 4)
    for step in range(5, 7):
        again.write({"step": step, "run": 2})
    again.close()
    found = [(r["step"], r["run"]) for r in read_metrics(path)]
    assert found == [(1, 1), (2, 1), (3, 1), (4, 1), (5, 2), (6, 2)]
    assert [p.name for p in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("cut", range(1, 16))
def test_a_line_cut_short_by_a_kill(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "metrics.jsonl"
    whole = '{"step": 1, "loss": 2}\n'
    path.write_text(whole + whole.replace("1", "2")[:-cut])
    # The line's end alone may be missing: then the record is whole.
    steps = [1, 2] if cut == 1 else [1]
    assert [r["step"] for r in read_metrics(path)] == steps
    log = MetricsLog(path, 1)
    log.write({"step": 2, "loss": 5})
    log.close()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_tensorboard_is_asked_for_plainly(tmp_path: Path) -> None:
    if importlib.util.find_spec("tensorboardX"):
        pytest.skip("tensorboardX is installed")
    with pytest.raises(UserError, match="pip install tensorboardX"):
        MetricsLog(tmp_path / "metrics.jsonl", 0, tensorboard=True)


def test_what_is_not_finite_is_null(tmp_path: Path) -> None:
    log = MetricsLog(tmp_path / "metrics.jsonl", 0)
    log.write({"step": 1, "nll": math.nan, "perplexity": math.inf, "loss": 2.5})
    log.close()
    text = (tmp_path / "metrics.jsonl").read_text()
    assert text == '{"step": 1, "nll": null, "perplexity": null, "loss": 2.5}\n'
