"""The recipe on groups of processes: `python -m tests.recipes.full_worker`, with a plan as JSON on stdin, prints as JSON what became of it.

A plan is a list of groups, one after the other: {"argv": [...], "environment": [{...} of each process], "stop": null or [record, rank]}.
Processes are told by environment variables who they are, as a launcher does it; `stop` sends SIGTERM to one of them once the run has logged
so many steps. They are forked: what they import takes longer than what they do.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import time
import traceback
from pathlib import Path
from typing import Any

import torch

RECIPE = Path(__file__).parents[2] / "recipes" / "univa"
SECONDS = 240
"""A group that takes longer hangs."""
GRACE = 30
"""What the others have to end by themselves where one has failed."""


def started(rank: int, environment: dict[str, str], argv: list[str], said: Path) -> int:
    """A process of the group."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with said.open("w") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        os.environ |= environment
        train = importlib.import_module("train")
        code = train.main(argv)
        sys.stdout.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def group(number: int, plan: dict[str, Any], folder: Path) -> dict[str, Any]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    files = [folder / f"{number}-{rank}.txt" for rank in range(len(plan["environment"]))]
    children = [
        started(rank, environment | {"MASTER_PORT": port}, plan["argv"], files[rank])
        for rank, environment in enumerate(plan["environment"])
    ]
    codes: dict[int, int] = {}
    ends, stop = time.monotonic() + SECONDS, plan["stop"]
    log = Path(plan["argv"][plan["argv"].index("--run") + 1]) / "metrics.jsonl"
    before = _records(log)
    while len(codes) < len(children):
        child, status = os.waitpid(-1, os.WNOHANG)
        if child:
            codes[child] = os.waitstatus_to_exitcode(status)
        if any(code not in (0, 143) for code in codes.values()):
            ends = min(ends, time.monotonic() + GRACE)
        if time.monotonic() > ends:
            for other in set(children) - codes.keys():
                os.kill(other, signal.SIGKILL)
                os.waitpid(other, 0)
                codes[other] = -signal.SIGKILL
            break
        if stop is not None and _records(log) - before >= stop[0]:
            os.kill(children[stop[1]], signal.SIGTERM)
            stop = None
        time.sleep(0.005)
    return {"codes": [codes[child] for child in children], "said": [file.read_text() for file in files]}


def _records(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0


def main() -> None:
    plan = json.load(sys.stdin)
    sys.path.insert(0, str(RECIPE))
    if any("zero3" in one["argv"] for one in plan["groups"]):
        import deepspeed  # noqa: F401 (before the fork)
    for module in ("train", "report", "vlmkit.training.loop", "vlmkit.build", "vlmkit.training.engines.zero", "vlmkit.evaluation.tasks"):
        importlib.import_module(module)
    torch.set_num_threads(1)
    print(json.dumps([group(number, one, Path(plan["folder"])) for number, one in enumerate(plan["groups"])]))


if __name__ == "__main__":
    main()
