"""Groups of processes that train for an objective: `python -m tests.training.objective_worker`, with a plan as JSON on stdin.

A plan is a list of groups: {"world": 2, "runs": [["directory", "objective", "engine"]]}. One process trains on the whole batch, two on a
half each.
"""

from __future__ import annotations

import functools
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor
from torch.utils.data import Dataset

import vlmkit
from tests.training.forked import group
from vlmkit.training.blueprint import OfArchitecture
from vlmkit.training.engines import engine
from vlmkit.training.loop import Trainer
from vlmkit.training.objectives import objectives
from vlmkit.training.objectives.caption_contrast_module import caption_rows, embed
from vlmkit.training.processes import Processes
from vlmkit.training.run import RunDirectory
from vlmkit.training.stage import Source, Stage

SAMPLES = 4
"""Of the whole batch."""
CAPTIONS = [
    ("a dog on grass", "grass, and a dog that lies on it"),
    ("two cats", "a pair of cats in the sun"),
    ("red bus", "a bus; it is red"),
    ("snow", "a white field in winter"),
]
FIELDS: dict[str, dict[str, Any]] = {"autoregressive": {}, "caption_contrast": {}, "image_text_contrast": {"dim": 16, "blocks": 2}}
KINDS = tuple(FIELDS)
DATA = (Source(name="any"),)
STAGES = {
    "autoregressive": Stage(
        name="any", steps=5, batch_size=2, encoder=3e-3, connector=3e-3, language_model=3e-3, head=3e-3, schedule="constant", data=DATA
    ),
    "caption_contrast": Stage(
        name="any",
        steps=5,
        batch_size=2,
        learn={"language_model": 1e-3, "language_model.head": None},
        schedule="constant",
        data=DATA,
    ),
    "image_text_contrast": Stage(name="any", steps=5, batch_size=2, encoder=1e-3, head=1e-3, schedule="constant", data=DATA),
}


def architecture(kind: str) -> vlmkit.Architecture:
    return vlmkit.architecture("aimv2-tiny" if kind == "autoregressive" else "llava-1.5-tiny")


def task_of(kind: str) -> Any:
    return objectives[kind](**FIELDS[kind]).task(architecture(kind), seed=1)


class Batches(Dataset[dict[str, Tensor]]):
    """Batch n of a group of `world` processes, of whom each has `SAMPLES / world` of the same four samples."""

    def __init__(self, kind: str, world: int = 1) -> None:
        self.kind, self.world = kind, world
        self.processor, self.task = vlmkit.build_processor(architecture(kind)), task_of(kind)

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        step, rank = divmod(number, self.world)
        own = range(rank * SAMPLES // self.world, (rank + 1) * SAMPLES // self.world)
        captions = [CAPTIONS[sample] for sample in own]
        pictures = [np.random.default_rng(sample).integers(0, 255, (40, 52, 3), dtype=np.uint8) for sample in own]
        if self.kind == "caption_contrast":
            return self.task.batch(self.processor, captions)
        if self.kind == "image_text_contrast":
            return self.task.batch(self.processor, pictures, embeddings()[list(own)])
        # In every third step the second half has no images: a process of two then sees none.
        seen = [sample for sample in own if step % 3 != 2 or sample < SAMPLES // 2]
        rows = [
            [
                {"role": "user", "content": [{"type": "image", "image": picture}] if sample in seen else "?"},
                {"role": "assistant", "content": caption[0][:4]},
            ]
            for sample, picture, caption in zip(own, pictures, captions, strict=True)
        ]
        batch = self.task.batch(self.processor, rows, seed=step)
        # Two processes draw other numbers than one; here each sample has its own, and in the first half more patches count.
        return batch | {"prefixes": torch.tensor([1 + sample // 2 for sample in seen], dtype=torch.long)}


@functools.cache
def embeddings() -> Tensor:
    arch = architecture("image_text_contrast")
    with torch.no_grad():
        return embed(vlmkit.build(arch, seed=0), caption_rows(vlmkit.build_processor(arch), [first for first, _ in CAPTIONS]))


def train(processes: Processes, directory: str, kind: str, name: str) -> None:
    run = RunDirectory(Path(directory))
    if processes.main:
        run.begin({"test": kind})
    processes.wait()
    trainer = Trainer(
        run,
        OfArchitecture(architecture(kind), seed=0),
        engine=engine(name, processes),
        console=Console(quiet=True),
        save_seconds=1e9,
        workers=0,
    )
    task = task_of(kind)
    trainer.train(STAGES[kind], Batches(kind, processes.world), loss=task, head=task.head)
    if trainer.log is not None:
        trainer.log.close()
        run.unlock()


def work(processes: Processes, runs: list[list[str]]) -> None:
    for run in runs:
        train(processes, *run)


if __name__ == "__main__":
    torch.set_num_threads(1)
    for planned in json.load(sys.stdin):
        group(planned["world"], functools.partial(work, runs=planned["runs"]))
