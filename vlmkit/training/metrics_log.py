"""What a run measured, step by step: JSON lines for programs, TensorBoard events for eyes, and trackers where they are asked for."""

from __future__ import annotations

import contextlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmkit.files import writing
from vlmkit.training.run import RunError
from vlmkit.training.trackers import Tracker, asked_for


class MetricsLog:
    """Appends records to `metrics.jsonl` and to TensorBoard's events under `tensorboard/`.

    A continued run first drops the records after the state that it continues from (`keep` bytes of the file, `step`
    updates in all), so that the file reads as if nothing had happened.
    """

    def __init__(
        self,
        directory: Path,
        *,
        keep: int = 0,
        step: int = 0,
        trackers: Sequence[str] | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        """trackers: "wandb", "trackio"; None: those that the environment asks for (vlmkit.training.trackers). config: what they show
        of the run. Raises TrackerError for one that is not installed."""
        from torch.utils.tensorboard import SummaryWriter

        self.trackers = [Tracker(name, directory, config) for name in (asked_for() if trackers is None else trackers)]
        self._path = path = directory / "metrics.jsonl"
        there = path.stat().st_size if path.exists() else 0
        if there < keep:
            lost = f"has {there:,} of the {keep:,} bytes that it had when the state was saved" if path.exists() else "is missing"
            warnings.warn(f"{path} {lost}; the run goes on, and the records before are lost", stacklevel=2)
            keep = len(path.read_bytes().rpartition(b"\n")[0]) + 1 if there else 0
        path.touch()
        self._file = path.open("r+b")
        self._file.truncate(keep)
        self._file.seek(0, 2)
        # TensorBoard drops what earlier files say of this step and later ones.
        self._events = SummaryWriter(str(directory / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, record: dict[str, Any], scores: Mapping[str, float] | None = None) -> None:
        """One record. `step` counts the updates of all stages; its floating numbers are curves. scores: of an evaluation after this
        step, which stand in the record as `score/...`."""
        scored = {f"score/{name}": value for name, value in (scores or {}).items()}
        with writing(self._path):
            self._file.write(json.dumps(record | scored, ensure_ascii=False).encode() + b"\n")
        curves = {f"train/{name}": value for name, value in record.items() if isinstance(value, float)}
        for name, value in curves.items():
            self._events.add_scalar(name, value, step)
        for tracker in self.trackers:
            tracker.log(step, curves)
        if scores:
            self.scores(step, scores)

    def scores(self, step: int, scores: Mapping[str, float]) -> None:
        """Results of an evaluation, as points beside the curves."""
        for name, value in scores.items():
            self._events.add_scalar(name, value, step)
        for tracker in self.trackers:
            tracker.add(step, scores)

    def flush(self) -> int:
        """Bring everything to the files; returns the length of metrics.jsonl in bytes."""
        with writing(self._path):
            self._file.flush()
        self._events.flush()
        for tracker in self.trackers:
            tracker.keep()
        return self._file.tell()

    def close(self) -> None:
        try:
            self.flush()
        finally:
            with contextlib.suppress(OSError):  # what did not fit on the disk does not fit now
                self._file.close()
        self._events.close()
        for tracker in self.trackers:
            tracker.close()


def read_metrics(directory: Path) -> Iterator[dict[str, Any]]:
    """Records in the order in which they were written."""
    path = directory / "metrics.jsonl"
    if not path.is_file():
        raise RunError(f"{path} is missing: the run has written no records, or the file was removed")
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except ValueError as error:
                raise RunError(f"{path}, line {number} is no record ({error}); remove the line") from None
