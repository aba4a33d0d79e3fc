"""The directory of a run: one configuration, one process at a time, finished or not. Loads no torch."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import IO, Any

from vlmkit.differences import differences
from vlmkit.files import PARTIAL, write_whole


class RunError(Exception):
    """A directory that cannot be used for what was asked, and the way out."""


class RunDirectory:
    """Holds `run.json` (the configuration), `state/` (where it is), `metrics.jsonl`, `tensorboard/`, and at
    the end `checkpoint/`, `results.json` and `report.html`."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock: IO[str] | None = None

    @property
    def state(self) -> Path:
        """A directory for each of the last states: see vlmkit.training.states."""
        return self.path / "state"

    @property
    def data(self) -> Path:
        """Where the data stands, and what of it was left out: a copy to read of what the state holds."""
        return self.path / "data.json"

    @property
    def finished(self) -> bool:
        return (self.path / "results.json").is_file() and (self.path / "report.html").is_file()

    def configuration(self) -> dict[str, Any] | None:
        """What the directory was begun with; None where there is no run."""
        try:
            found = json.loads((self.path / "run.json").read_text(encoding="utf-8"))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise RunError(
                f"{self.path / 'run.json'} cannot be read ({error}); remove the directory or choose another with --run"
            ) from None
        if not isinstance(found, dict):
            raise RunError(f"{self.path / 'run.json'} holds no configuration; remove the directory or choose another with --run")
        return found

    def check(self, configuration: dict[str, Any]) -> None:
        """Raises RunError with both values of everything in which an existing run differs."""
        found = self.configuration()
        if found is None:
            if self.path.exists() and (not self.path.is_dir() or any(file.name != ".lock" for file in self.path.iterdir())):
                raise RunError(f"{self.path} exists and holds no run; choose another directory with --run")
            return
        differing = [
            f"{path}: the run has {json.dumps(one)}, asked for {json.dumps(other)}"
            for path, one, other in differences(found, json.loads(json.dumps(configuration)), same=_is_same)
        ]
        if differing:
            shown = differing[:12] + ([f"and {len(differing) - 12} more"] if len(differing) > 12 else [])
            lines = "\n  ".join(shown)
            raise RunError(
                f"{self.path} holds a run with another configuration:\n  {lines}\n"
                "Give the same arguments to continue it, --fresh to start anew there, or another --run."
            )

    def begin(self, configuration: dict[str, Any]) -> None:
        """Check, make the directory and keep it for this process. Raises RunError where another one is at work in it."""
        self.check(configuration)
        self.path.mkdir(parents=True, exist_ok=True)
        self.lock()
        try:
            for leftover in self.path.glob(f"*{PARTIAL}"):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            if self.configuration() is None:
                write_whole(self.path / "run.json", json.dumps(configuration, indent=2, ensure_ascii=False) + "\n")
        except BaseException:
            self.unlock()
            raise

    def clear(self) -> None:
        """Remove the run. Raises RunError for a directory that holds none: nothing else is ever deleted."""
        if not self.path.exists():
            return
        if self.configuration() is None:
            raise RunError(f"{self.path} holds no run (no run.json), so --fresh leaves it alone; choose another directory with --run")
        self.lock()
        shutil.rmtree(self.path)
        self.unlock()

    def lock(self) -> None:
        """Keep the directory for this process; the system lets go of it when the process ends, however it ends."""
        import fcntl

        if self._lock is None:
            file = (self.path / ".lock").open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
                raise RunError(f"another process is training in {self.path}; wait for it, or choose another directory with --run") from None
            # A worker that prepares data outlives a killed process by seconds, in which the run could not be continued.
            os.register_at_fork(after_in_child=file.close)
            self._lock = file

    def unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None


def _is_same(one: Any, other: Any) -> bool:
    """Also of one type: True is not 1, and 1 is not 1.0."""
    return bool(one == other) and type(one) is type(other)
