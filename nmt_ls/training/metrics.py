"""metrics.jsonl: one JSON object per logged or validated step, no step twice."""

import json
import math
import os
from pathlib import Path
from typing import Any

from nmt_ls.errors import UserError


class MetricsLog:
    """The record of a run. Opening it again at a step forgets what came after that step.

    Args:
      path: the file.
      step: the step that training continues from; records after it will be made again.
      tensorboard: also write event files beside it.
    """

    def __init__(self, path: Path, step: int, *, tensorboard: bool = False):
        self._events = _event_writer(path.parent / "tensorboard", step) if tensorboard else None
        kept = [r for r in read_metrics(path) if r["step"] <= step] if path.exists() else []
        beside = path.with_suffix(".tmp")
        beside.write_text("".join(json.dumps(r) + "\n" for r in kept))
        os.replace(beside, path)
        self._file = path.open("a")

    def write(self, record: dict[str, Any]) -> None:
        """Append one record; it has a `step`. What is not finite becomes null, as JSON has none."""
        record = {
            name: None if isinstance(value, float) and not math.isfinite(value) else value
            for name, value in record.items()
        }
        self._file.write(json.dumps(record) + "\n")
        self._file.flush()
        if self._events is not None:
            for name, value in record.items():
                if name != "step" and isinstance(value, int | float):
                    self._events.add_scalar(name, value, record["step"])

    def sync(self) -> None:
        """On the disk, not only with the operating system: before a checkpoint relies on it."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        self._file.close()
        if self._events is not None:
            self._events.close()


def _event_writer(folder: Path, step: int) -> Any:
    try:
        from tensorboardX import SummaryWriter
    except ImportError as error:
        raise UserError(
            "training.tensorboard needs tensorboardX: pip install tensorboardX"
        ) from error
    return SummaryWriter(str(folder), purge_step=step + 1)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of a metrics.jsonl; a last line that a kill cut short is left out."""
    records = []
    for line in path.read_bytes().split(b"\n"):
        try:
            records.append(json.loads(line))
        except ValueError:
            continue
    return records
