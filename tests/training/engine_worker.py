"""Groups of processes that train: `python -m tests.training.engine_worker`, with a plan as JSON on stdin.

A plan is a list of groups, one after the other: {"world": 2, "runs": [["directory", "engine", "stage", stop], ["copy", "from", "to"]]}.
A run trains the stage in the directory, from wherever that stands, "full*10" in ten times as many steps; `stop` sends SIGTERM to the last
process in that step, or is null.
"""

from __future__ import annotations

import functools
import json
import math
import os
import shutil
import signal
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import Dataset

import vlmkit
from tests.training.conftest import DATA, small
from tests.training.forked import group
from vlmkit.evaluation.tasks import Question, Task, evaluate
from vlmkit.experts import Experts
from vlmkit.training.adapter import Adapter
from vlmkit.training.blueprint import OfArchitecture
from vlmkit.training.engines import engine
from vlmkit.training.loop import Interrupted, Trainer
from vlmkit.training.processes import Processes
from vlmkit.training.run import RunDirectory
from vlmkit.training.stage import Stage
from vlmkit.training.update import model_loss

MICRO_BATCHES = 6
"""In an update, of however many processes."""
SMALL: dict[str, Any] = {"reduce_bucket_size": 100_000, "stage3_prefetch_bucket_size": 100_000, "stage3_param_persistence_threshold": 0}
"""Buckets as small as the model, so that nothing is whole by accident."""

STAGES = {
    "connector": Stage(name="connector", steps=5, batch_size=2, connector=1e-3, warmup=3, data=DATA),
    "full": Stage(
        name="full",
        steps=5,
        batch_size=2,
        learn={"language_model": 1e-3, "language_model.embeddings": 3e-4},
        encoder=1e-3,
        connector=1e-3,
        weight_decay=0.1,
        clip=0.5,
        ema=0.9,
        data=DATA,
    ),
    "experts": Stage(
        name="experts",
        steps=5,
        batch_size=2,
        experts=Experts(count=4, top=2, layers=(1, 2), balance=0.1),
        learn={"language_model.experts": 1e-3, "language_model.router": 1e-2},
        data=DATA,
    ),
    "experts-lora": Stage(
        name="experts-lora",
        steps=5,
        batch_size=2,
        experts=Experts(count=4, top=2, layers=(1, 2), balance=0.1),
        learn={"language_model.experts": 1e-2, "language_model.router": 1e-2},
        adapters={"language_model.experts": Adapter(rank=2)},
        data=DATA,
    ),
    "lora": Stage(
        name="lora",
        steps=5,
        batch_size=2,
        connector=1e-3,
        language_model=1e-2,
        adapters={"language_model": Adapter(rank=4, modules=("q_proj", "v_proj", "down_proj"))},
        data=DATA,
    ),
    "qlora": Stage(
        name="qlora",
        steps=5,
        batch_size=2,
        connector=1e-3,
        language_model=2e-3,
        adapters={"language_model": Adapter(rank=4, quantize="nf4")},
        data=DATA,
    ),
    "qdora": Stage(
        name="qdora",
        steps=5,
        batch_size=2,
        language_model=2e-3,
        adapters={"language_model": Adapter(rank=4, quantize="nf4", dora=True)},
        data=DATA,
    ),
    "slow-lora": Stage(
        name="slow-lora",
        steps=5,
        batch_size=2,
        connector=1e-3,
        language_model=2e-3,
        warmup=5,
        adapters={"language_model": Adapter(rank=4, modules=("q_proj", "v_proj", "down_proj"))},
        data=DATA,
    ),
    "skip": Stage(
        name="skip", steps=4, batch_size=2, connector=1e-3, language_model=1e-3, schedule="constant", nonfinite="skip", data=DATA
    ),
    "looked": Stage(name="looked", steps=4, batch_size=2, encoder=1e-3, connector=1e-3, language_model=1e-3, data=DATA),
    "dora": Stage(
        name="dora",
        steps=5,
        batch_size=2,
        encoder=1e-2,
        language_model=1e-2,
        adapters={"encoder": Adapter(rank=2, dora=True), "language_model": Adapter(rank=4, dora=True)},
        data=DATA,
    ),
}


class Mixed(Dataset[dict[str, Tensor]]):
    """Micro-batch n: words alone, one picture, several of other sizes; padded, or packed into a row."""

    def __init__(self, processor: vlmkit.VLMProcessor) -> None:
        self.processor = processor

    def __getitem__(self, number: int) -> dict[str, Tensor]:
        rng = np.random.default_rng(number)
        rows = []
        for _ in range(2):
            sizes = [] if number % 3 == 0 else [(56, 56)] if number % 3 == 1 else [(56, 140), (84, 56)]
            pictures = [{"type": "image", "image": rng.integers(0, 255, (*size, 3), dtype=np.uint8)} for size in sizes]
            question = [*pictures, {"type": "text", "text": f"{rng.integers(100)}?"}]
            rows.append([{"role": "user", "content": question}, {"role": "assistant", "content": "yes" * int(rng.integers(1, 4))}])
        return dict(self.processor(rows, pack=number % 2 == 1))


def task() -> Task:
    """Questions about three pictures of three sizes."""
    rng = np.random.default_rng(7)
    images = tuple(rng.integers(0, 255, (*size, 3), dtype=np.uint8) for size in ((56, 56), (84, 56), (56, 140)))
    return Task("seen", images, tuple(Question(number, f"{number}?", "yes") for number in range(3)))


def train(processes: Processes, directory: str, kind: str, stage: str, stop: int | None) -> None:
    run = RunDirectory(Path(directory))
    if processes.main:
        run.begin({"test": stage})
    processes.wait()
    options = SMALL if kind == "zero3" else {"reduce_bucket_size": 100_000} if kind == "zero2" else {}
    made = engine(kind, processes)
    if options:
        made = type(made)(processes, **options)
    console = Console(quiet=True)
    trainer = Trainer(run, OfArchitecture(small(), seed=0), engine=made, console=console, save_seconds=1e9, workers=0)
    calls = 0

    def loss(model: nn.Module, batch: Any) -> Tensor:
        nonlocal calls
        if stop is not None and processes.rank == processes.world - 1 and calls == stop * (MICRO_BATCHES // processes.world):
            os.kill(os.getpid(), signal.SIGTERM)
        calls += 1
        # Of stage "skip" the last micro-batch of step 1, which is the last process's, is no number.
        spoilt = stage == "skip" and processes.rank == processes.world - 1 and calls == 2 * (MICRO_BATCHES // processes.world)
        return model_loss(model, batch) * (math.nan if spoilt else 1.0)

    name, _, times = stage.partition("*")
    trained = STAGES[name].replace(accumulate=MICRO_BATCHES // processes.world, steps=STAGES[name].steps * int(times or 1))
    batches = Mixed(vlmkit.build_processor(small()))
    looks: dict[str, Any] = {}
    if stage == "looked":
        looks = {"evaluate": lambda model: held(model), "evaluate_every": 2}

    def held(model: Any) -> dict[str, float]:
        said = [answer.sighted + answer.blind for answer in evaluate(model, batches.processor, task(), max_new_tokens=6).answers]
        loss = model(**batches[1000], use_cache=False).loss.item()
        return {"loss": loss, "letters": len("".join(said)), "said": float(zlib.crc32("".join(said).encode()))}

    try:
        trainer.train(trained, batches, loss=loss, **looks)
    except Interrupted:
        assert stop is not None
    if trainer.log is not None:
        trainer.log.close()
        run.unlock()


def work(processes: Processes, runs: list[list[Any]]) -> None:
    for run in runs:
        if run[0] == "copy":
            processes.wait()
            if processes.main:
                shutil.copytree(run[1], run[2])
        else:
            train(processes, *run)


def main() -> None:
    import deepspeed  # noqa: F401 (before the fork)

    torch.set_num_threads(1)
    for planned in json.load(sys.stdin):
        group(planned["world"], functools.partial(work, runs=planned["runs"]))


if __name__ == "__main__":
    main()
