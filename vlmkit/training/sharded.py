"""The state of a run whose weights no process holds whole: DeepSpeed's own files in a directory of their own.

A directory counts once `position.json` is in it, which is written last; until then the one before it stays. The files are
DeepSpeed's (torch.save), not ours. Resuming takes as many processes as saved: another number is refused rather than
converted, because conversion silently leaves frozen parameters out (deepspeed 0.19).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import Accelerator

from vlmkit.files import write_whole
from vlmkit.training.checkpoint import StateError


class ShardedState:
    """The newest complete state under a directory, if there is one."""

    def __init__(self, directory: Path, processes: int) -> None:
        """Raises StateError for a state that another number of processes saved."""
        self.path: Path | None = None
        self.position: dict[str, Any] = {}
        complete = [path.parent for path in directory.glob("*/position.json")]
        if complete:
            self.path = max(complete, key=lambda path: int(path.name))
            self.position = json.loads((self.path / "position.json").read_text(encoding="utf-8"))
            if self.position["processes"] != processes:
                raise StateError(f"{self.path} was saved by {self.position['processes']} processes; continue with as many, not {processes}")

    def load(self, accelerator: Accelerator) -> None:
        """Fill what the accelerator has prepared."""
        if self.path is not None:
            accelerator.load_state(str(self.path))


def save_sharded(accelerator: Accelerator, directory: Path, position: Mapping[str, Any], *, weights: bool) -> None:
    """Every process calls this. With `weights` False only the position is written: a stage is done and exported."""
    path = directory / f"{position['updates']:09}"
    if accelerator.is_main_process:
        shutil.rmtree(path, ignore_errors=True)
        path.mkdir(parents=True)
    accelerator.wait_for_everyone()
    if weights:
        accelerator.save_state(str(path))
    accelerator.wait_for_everyone()
    if accelerator.is_main_process:
        write_whole(path / "position.json", json.dumps(dict(position) | {"processes": accelerator.num_processes}))
        for older in directory.iterdir():
            if older != path:
                shutil.rmtree(older)
    accelerator.wait_for_everyone()
