"""The full preset from the published formats to a checkpoint that answers: small by flags, on two processes, stopped on the way."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from tests.data.formats import published
from vlmkit import cli
from vlmkit.training.metrics_log import read_metrics
from vlmkit.training.states import SavedState

ROOT = Path(__file__).parents[2]
SETS = ("redcaps", "synthtext", "coco", "gqa", "textvqa", "docvqa")
PLUGIN = '''
"""Olmo-3.1-UNIVA-VL's parts, as small as they get."""

import vlmkit
from vlmkit.encoders.open_clip import OpenClip
from vlmkit.preprocess.policies.smart_resize import SmartResize

tiny = vlmkit.architecture("univa-vl-tiny")
config = tiny.language_model.config | {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4}
vlmkit.register_model(
    tiny.replace(
        name="univa-vl-pocket",
        policy=SmartResize(min_pixels=4 * 784, max_pixels=12 * 784),
        encoder=OpenClip(width=32, layers=2, heads=2, image_size=56),
        language_model=tiny.language_model.replace(config=config),
    )
)
'''
STEPS = {"align": 1, "pretrain": 6, "sft": 1}
"""Of the stages at --scale 0.002."""


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the plugin, and the six data sets packed from the forms in which they are published."""
    folder = tmp_path_factory.mktemp("full")
    (folder / "pocket.py").write_text(PLUGIN)
    for name in SETS:
        raw = getattr(published, name)(folder / "published" / name)
        assert cli.main(["data", "pack", str(raw), str(folder / "data" / name), "--format", name, "--workers", "0"]) == 0
    evaluated = ["data", "pack", str(folder / "published" / "gqa"), str(folder / "data" / "eval" / "gqa"), "--format", "gqa"]
    assert cli.main([*evaluated, "--workers", "0"]) == 0
    return folder


def command(desk: Path, run: Path, engine: str) -> list[str]:
    given = "--preset full --model univa-vl-pocket --weights random --length 192 --batch-tokens 1536 --scale 0.002"
    given += f" --workers 0 --threads 1 --save-seconds 0 --engine {engine}"
    return [*given.split(), "--plugin", str(desk / "pocket.py"), "--data", str(desk / "data"), "--run", str(run)]


def by_torchrun(world: int) -> list[dict[str, str]]:
    numbers = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(world))
    return [one | {"WORLD_SIZE": str(world), "LOCAL_WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1"} for one in numbers]


def groups(folder: Path, plans: list[dict[str, Any]]) -> list[dict[str, Any]]:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.recipes.full_worker"],
        input=json.dumps({"folder": str(folder), "groups": plans}),
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        text=True,
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-6000:]
    found: list[dict[str, Any]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("engine", ["fsdp2", pytest.param("zero3", marks=pytest.mark.slow)])
def test_all_stages_run_on_two_processes_through_a_stop_to_answers(engine, desk, tmp_path, capsys):
    run, whole = tmp_path / "run", tmp_path / "whole"
    two = {"environment": by_torchrun(2), "stop": None}
    stopped, refused, continued, again, unstopped = groups(
        tmp_path,
        [
            two | {"argv": command(desk, run, engine), "stop": [3, 1]},
            two | {"argv": [*command(desk, run, engine), "--seed", "1"]},
            *[two | {"argv": command(desk, run, engine)}] * 2,
            two | {"argv": command(desk, whole, engine)},
        ],
    )
    assert stopped["codes"] == [143, 143], stopped
    assert "stopped in stage pretrain after" in stopped["said"][0]
    assert "The same command goes on from there" in stopped["said"][0]
    assert "stopped in stage" not in stopped["said"][1]
    assert refused["codes"] == [1, 1], refused  # nobody waits for a process that is gone
    assert "seed: the run has 0, asked for 1" in refused["said"][0]
    assert "the main process could not go on" in refused["said"][1]
    assert continued["codes"] == [0, 0], continued
    assert f"on 2 processes ({engine})" in continued["said"][0]
    assert again["codes"] == [0, 0]
    assert "holds a finished run: gqa" in again["said"][0]
    assert unstopped["codes"] == [0, 0], unstopped

    records, wanted = list(read_metrics(run)), list(read_metrics(whole))
    places = [(name, step) for name, steps in STEPS.items() for step in range(steps)]
    assert [(record["stage"], record["step"]) for record in records] == places
    assert max(abs(one["loss"] - other["loss"]) for one, other in zip(records, wanted, strict=True)) < 1e-5
    state = SavedState.newest(run / "state")
    assert state is not None
    assert state.position["done"] == list(STEPS)
    assert json.loads((run / "results.json").read_text())["scores"].keys() == {"gqa"}
    assert "univa-vl-pocket" in (run / "report.html").read_text(encoding="utf-8")

    capsys.readouterr()
    photo = desk / "published" / "gqa" / "images" / "2405722.jpg"
    asked = ["chat", str(run), str(photo), "Is the sky dark?", "--max-new-tokens", "4", "--plugin", str(desk / "pocket.py")]
    assert cli.main(asked) == 0
    answer = capsys.readouterr().out
    model, processor = vlmkit.load(run / "checkpoint")
    assert model.chat(processor, photo, "Is the sky dark?", max_new_tokens=4) == answer.strip("\n")
