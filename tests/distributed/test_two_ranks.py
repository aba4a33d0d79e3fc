"""Two ranks, whatever their batches hold, call every sharded module equally often and see what one process would have seen."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from tests.counted import TINY_MODELS
from tests.distributed.cases import CASES, TINY, ZERO3
from vlmkit.connectors.mlp import Mlp

ROOT = Path(__file__).parents[2]
LIMIT = 300
"""Seconds that all cases together may take."""


def test_every_tiny_model_and_part_is_among_the_cases() -> None:
    assert len(TINY) == TINY_MODELS
    walked = [case.architecture() for case in CASES.values()]
    of: dict[str, set[str]] = {
        family: {getattr(arch, family).kind for arch in walked} for family in ("policy", "connector", "layout", "fusion")
    }
    of["encoder"] = {tower.encoder.kind for arch in walked for tower in arch.towers}
    registries = {"policy": vlmkit.policies, "encoder": vlmkit.encoders, "connector": vlmkit.connectors, "layout": vlmkit.layouts}
    for family, registry in (registries | {"fusion": vlmkit.fusions}).items():
        assert of[family] == set(registry.names())
    assert {arch.connector.norm_between for arch in walked if isinstance(arch.connector, Mlp)} == {"none", "layer_norm"}
    assert any(getattr(arch.encoder, "model", "").startswith("eva02") for arch in walked)
    assert any(arch.language_model.experts for arch in walked)


def both(directory: Path, cases: Iterable[str], limit: float) -> list[dict[str, Any]]:
    """What both ranks saw of each case: one pair of processes for all of them, since they start in seconds and run in tenths."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    errors = [directory / f"{rank}.err" for rank in range(2)]
    ranks = []
    for rank, error in enumerate(errors):
        command = [sys.executable, "-m", "tests.distributed.worker", str(rank), str(port), str(directory / f"{rank}.out"), *cases]
        with error.open("w") as file:
            ranks.append(subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file))
    ends = time.monotonic() + limit
    try:
        for process in ranks:
            process.wait(max(1, ends - time.monotonic()))
    except subprocess.TimeoutExpired:
        pass
    finally:
        for process in ranks:
            process.kill()
            process.wait()
    return [
        {"lines": [json.loads(line) for line in (directory / f"{rank}.out").read_text().splitlines()], "errors": errors[rank].read_text()}
        for rank in range(2)
    ]


def compare(case: str, seen: list[dict[str, Any]]) -> None:
    found = [[line for line in rank["lines"] if line["case"] == case] for rank in seen]
    for rank, lines in enumerate(found):
        assert len(lines) > 0, f"an earlier case ended rank {rank}"
        assert len(lines) == 2, f"rank {rank} did not come to the end of it:\n{seen[rank]['errors'][-3000:]}"
    first, second = (lines[1] for lines in found)
    assert first["calls"] == second["calls"]
    for rank in (first, second):
        assert rank["loss"] < 1e-5, rank
        assert rank["gradient"] < 1e-4, rank


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return both(tmp_path_factory.mktemp("ranks"), CASES, LIMIT)


@pytest.fixture(scope="module")
def seen_by_zero3(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    return both(tmp_path_factory.mktemp("zero3"), ZERO3, LIMIT)


@pytest.mark.parametrize("case", CASES)
def test_two_ranks_see_what_one_process_sees(case: str, seen: list[dict[str, Any]]) -> None:
    compare(case, seen)


@pytest.mark.train
@pytest.mark.parametrize("case", ZERO3)
def test_and_under_zero3(case: str, seen_by_zero3: list[dict[str, Any]]) -> None:
    compare(case, seen_by_zero3)
