"""Runs that are killed again and again: `python -m tests.training.kill_worker`, with a plan as JSON on stdin, prints as JSON how often.

A plan is a list of {"directory", "data", "engine", "world", "kills", "seed", "scale", "pause"}: the stages of a small recipe in a
directory over the shards in `data`, kill -9 to one process so many times, each time after a random number of steps and up to `pause`
seconds, and then to the others, as a launcher does it. They are forked: what they import takes longer than what they do.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import sys
import time
import traceback
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

import vlmkit
from tests.training.conftest import small
from tests.training.engine_worker import SMALL
from vlmkit.preprocess.policies.smart_resize import SmartResize
from vlmkit.training.blueprint import OfArchitecture
from vlmkit.training.engines import engine
from vlmkit.training.launched import Place
from vlmkit.training.loop import Trainer
from vlmkit.training.processes import meet
from vlmkit.training.run import RunDirectory
from vlmkit.training.sources import mixture
from vlmkit.training.stage import Source, Stage

DATA = (Source(name="a", weight=2.0), Source(name="b"))
PACKED: dict[str, Any] = {"pack": True, "max_length": 128, "batch_tokens": 512, "data": DATA}
STAGES = (
    Stage(name="align", steps=25, connector=1e-3, warmup=10, **PACKED),
    Stage(name="pretrain", steps=25, encoder=1e-4, connector=1e-3, language_model=1e-3, warmup=5, weight_decay=0.1, ema=0.9, **PACKED),
    Stage(name="sft", steps=25, connector=1e-4, language_model=1e-4, recompute=True, **PACKED),
)
"""As the published recipe: a connector alone, everything, questions and answers."""
MODEL = small().replace(policy=SmartResize(min_pixels=4 * 784, max_pixels=8 * 784))
SECONDS = 500
"""A plan that takes longer hangs."""


def work(rank: int, port: int, plan: dict[str, Any]) -> None:
    torch.manual_seed(os.getpid())  # whatever is not in the state has to differ
    processes = meet(Place(rank, plan["world"], 0, port=port), patience=timedelta(seconds=60))
    run = RunDirectory(plan["directory"])
    with processes.main_first():
        run.begin({"stages": [stage.name for stage in STAGES]}) if processes.main else run.check({"stages": [s.name for s in STAGES]})
    options = SMALL if plan["engine"] == "zero3" else {}
    made = engine(plan["engine"], processes)
    made = type(made)(processes, **options)
    trainer = Trainer(run, OfArchitecture(MODEL, seed=0), engine=made, console=Console(quiet=True), save_seconds=0.0, workers=0)
    processor = vlmkit.build_processor(MODEL)
    for stage in STAGES:
        trainer.train(stage.scaled(plan["scale"]), mixture(stage, processor, Path(plan["data"]), seed=0))
    if trainer.log is not None:
        trainer.log.close()


def start(plan: dict[str, Any]) -> list[int]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    children = []
    for rank in range(plan["world"]):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                work(rank, port, plan)
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        children.append(child)
    return children


def reap(children: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children]


def lines(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def through(plan: dict[str, Any]) -> dict[str, Any]:
    rng = random.Random(plan["seed"])
    log = Path(plan["directory"]) / "metrics.jsonl"
    ends = time.monotonic() + SECONDS
    killed: list[int] = []
    total = sum(stage.scaled(plan["scale"]).steps for stage in STAGES)
    while True:
        children = start(plan)
        if len(killed) == plan["kills"]:
            codes = reap(children)
            assert codes == [0] * plan["world"], codes
            return {"killed": killed}
        # All over what is left of the run, and before its end.
        before, left = lines(log), plan["kills"] - len(killed)
        after = rng.randrange(0, 1 + max(0, min(2 * (total - before) // (left + 1), total - before - 2)))
        while lines(log) < before + after or not log.exists():
            assert time.monotonic() < ends, f"{plan} hangs after {killed}"
            gone, status = os.waitpid(-1, os.WNOHANG)
            assert not gone, f"a process ended with {os.waitstatus_to_exitcode(status)} after {killed}"
            time.sleep(0.001)
        time.sleep(rng.random() * plan["pause"])
        os.kill(rng.choice(children), signal.SIGKILL)
        time.sleep(rng.random() * plan["pause"])
        for child in children:
            os.kill(child, signal.SIGKILL)
        reap(children)
        killed.append(lines(log))


def main() -> None:
    plans = json.load(sys.stdin)
    if any(plan["engine"].startswith("zero") for plan in plans):
        import deepspeed  # noqa: F401 (before the fork)
    torch.set_num_threads(1)
    print(json.dumps([through(plan) for plan in plans]))


if __name__ == "__main__":
    main()
