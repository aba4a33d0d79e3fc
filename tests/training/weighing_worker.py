"""Groups of processes that train on samples of one to five conversations, weighed by the root: `python -m tests.training.weighing_worker`.

A plan is JSON on stdin, a list of groups: {"world": 2, "runs": [["directory", "engine", rows, accumulate, "root"]]}.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import Dataset

import vlmkit
from tests.data.mixture.test_weighing import Annotated
from tests.training.conftest import DATA, small
from tests.training.forked import group
from vlmkit.data.mixture import DataSource, Mixture
from vlmkit.training.blueprint import OfArchitecture
from vlmkit.training.engines import engine
from vlmkit.training.loop import Trainer
from vlmkit.training.processes import Processes
from vlmkit.training.run import RunDirectory
from vlmkit.training.stage import Stage

STAGE = Stage(name="any", steps=4, batch_size=1, connector=1e-3, language_model=1e-3, schedule="constant", data=DATA)


class Numbered(Dataset[dict[str, Tensor]]):
    """Micro-batch n of so many of the samples, again and again: processes share them in this order, as they do not share a mixture's."""

    def __init__(self, rows: int, weighing: str) -> None:
        mixture = Mixture([DataSource("a", Annotated())], vlmkit.build_processor(small()), rows=rows, epochs=1, weighing=weighing)  # type: ignore[arg-type]
        self.batches = list(mixture.batches())

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        return self.batches[number % len(self.batches)]


def train(processes: Processes, directory: str, kind: str, rows: int, accumulate: int, weighing: str) -> None:
    run = RunDirectory(Path(directory))
    if processes.main:
        run.begin({"test": kind})
    processes.wait()
    trainer = Trainer(
        run,
        OfArchitecture(small(), seed=0),
        engine=engine(kind, processes),
        console=Console(quiet=True),
        save_seconds=1e9,
        workers=0,
    )
    trainer.train(STAGE.replace(batch_size=rows, accumulate=accumulate), Numbered(rows, weighing))
    if trainer.log is not None:
        trainer.log.close()
        run.unlock()


def work(processes: Processes, runs: list[tuple[str, str, int, int, str]]) -> None:
    for run in runs:
        train(processes, *run)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for planned in json.load(sys.stdin):
        group(planned["world"], functools.partial(work, runs=planned["runs"]))
