"""What a run measured, step by step: JSON lines for programs, TensorBoard events for eyes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


class MetricsLog:
    """Appends records to `metrics.jsonl` and to TensorBoard's events under `tensorboard/`.

    A continued run first drops the records after the state that it continues from (`keep` bytes of the file, `step`
    updates in all), so that the file reads as if nothing had happened.
    """

    def __init__(self, directory: Path, *, keep: int = 0, step: int = 0) -> None:
        from torch.utils.tensorboard import SummaryWriter

        path = directory / "metrics.jsonl"
        path.touch()
        self._file = path.open("r+b")
        self._file.truncate(keep)
        self._file.seek(0, 2)
        self._events = SummaryWriter(str(directory / "tensorboard"), purge_step=step or None)

    def write(self, step: int, record: dict[str, Any]) -> None:
        """One record. `step` counts the updates of all stages; numbers of the record become TensorBoard's scalars."""
        self._file.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
        for name, value in record.items():
            if isinstance(value, float):
                self._events.add_scalar(f"train/{name}", value, step)

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """Results of an evaluation, for TensorBoard."""
        for name, value in scores.items():
            self._events.add_scalar(name, value, step)

    def flush(self) -> int:
        """Bring everything to the files; returns the length of metrics.jsonl in bytes."""
        self._file.flush()
        self._events.flush()
        return self._file.tell()

    def close(self) -> None:
        self.flush()
        self._file.close()
        self._events.close()


def read_metrics(directory: Path) -> Iterator[dict[str, Any]]:
    """Records in the order in which they were written."""
    with (directory / "metrics.jsonl").open(encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)
