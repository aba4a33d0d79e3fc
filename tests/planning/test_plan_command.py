"""`vlmkit plan`: real steps, each test file's in processes of their own, for they are traced on the meta device."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from vlmkit.architecture import PARTS
from vlmkit.cli import main
from vlmkit.training.adapter import Adapter
from vlmkit.training.adapters import add_adapters, is_adapter

ROOT = Path(__file__).resolve().parents[2]


TRACED = """
import contextlib, io, json, os
import torch
import vlmkit
from benchmarks import plan as bench
from vlmkit.cli import main
from vlmkit.planning import Job
from vlmkit.planning.memory import memory
from vlmkit.planning.trace import trace
from vlmkit.preprocess.geometry import Size
from vlmkit.training.adapter import Adapter

torch.set_num_threads(1)
tiny = vlmkit.architecture("univa-vl-tiny")
found = {}
for name, learns in (("connector", ("connector",)), ("everything", None)):
    for recompute in (False, True):
        for rows in (1, 2):
            job = Job(model=tiny, length=512, recompute=recompute, micro_batch=rows, **({} if learns is None else {"learns": learns}))
            step = trace(job)
            found[f"{name} {recompute} {rows}"] = {
                "last": step.moments[-1], "peak": max(map(sum, step.moments)), "flops": step.flops,
                "parts": {part: [of.total, of.learning, of.gradient_passes] for part, of in step.parts.items()},
                "of two rows": [(of := memory("single", job, step, 1, 2)).total - of.logits],
            }
lora = trace(Job(model=tiny, length=512, learns=("language_model",), adapters=(("language_model", Adapter(rank=4)),), recompute=False))
found["lora"] = {"last": lora.moments[-1], "parts": {part: [of.total, of.learning] for part, of in lora.parts.items()}}
real = Job(model=tiny, length=384, micro_batch=4, size=Size(112, 140), text_tokens=364, answer_tokens=182, recompute=True, dtype="float32")
found["real"] = bench.predicted(real) | bench.live(real, 2)

def say(*line):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(["plan", "univa-vl-tiny", *line]) == 0
    return out.getvalue()

found["json"] = json.loads(say(*"--gpus 16 --gpu h200 --stage sft --length 512 --images 1000000 --gpu-hour-price 2 --json".split()))
found["words"] = say(*"--gpu-memory 1.6GB --length 2048 --micro-batch 4 --no-recompute".split())
child = os.fork()
if child == 0:
    code = 1
    try:
        weight = torch.ones(3, requires_grad=True)
        (weight * weight).sum().backward()
        code = 0
    finally:
        os._exit(code)
found["forked"] = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
print(json.dumps(found))
"""
"""Everything that traces a step: in one process, which is not the tests'."""


@pytest.fixture(scope="module")
def traced() -> Any:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", TRACED]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=300, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_parameter_that_learns_has_its_gradient_at_the_end_and_no_logits_are_left(traced: Any) -> None:
    parameters = vlmkit.architecture("univa-vl-tiny").parameters()
    for recompute in (False, True):
        everything = traced[f"everything {recompute} 1"]
        assert everything["last"][1:] == [0, 2 * parameters.total], "bfloat16"
        assert {part: of[0] for part, of in everything["parts"].items()} == parameters._asdict()
        assert traced[f"connector {recompute} 1"]["last"][1:] == [0, 2 * parameters.connector]


def test_recomputing_takes_less_memory_and_more_operations(traced: Any) -> None:
    for name in ("connector", "everything"):
        plain, again = traced[f"{name} False 1"], traced[f"{name} True 1"]
        assert again["peak"] < plain["peak"] / 2
        assert 1.1 < again["flops"] / plain["flops"] < 1.6


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("name", ["connector", "everything"])
def test_a_step_of_one_row_tells_what_two_rows_take(traced: Any, name: str, recompute: bool) -> None:
    one, two = traced[f"{name} {recompute} 1"], traced[f"{name} {recompute} 2"]
    assert one["of two rows"] == pytest.approx(two["of two rows"], rel=0.02)
    assert two["flops"] == pytest.approx(2 * one["flops"], rel=0.01)


def test_operations_are_six_a_token_and_weight(traced: Any) -> None:
    """Of what learns: two forward, four backward. Patches are four a visual token."""
    step, parameters = traced["everything False 1"], vlmkit.architecture("univa-vl-tiny").parameters()
    embeddings = 320 * 128 * 2  # looked up, or used at supervised tokens only
    patches = 512 // 75 * 80
    expected = 6 * (512 * (parameters.language_model - embeddings) + patches * parameters.encoder)
    assert step["flops"] == pytest.approx(expected, rel=0.25)


def test_a_frozen_tower_has_no_backward_pass(traced: Any) -> None:
    passes = {part: of[2] for part, of in traced["connector False 1"]["parts"].items()}
    assert passes == {"encoder": False, "connector": True, "fusion": True, "language_model": True}


def test_of_a_stage_with_adapters_these_learn_and_nothing_else(traced: Any) -> None:
    parameters, lora = vlmkit.architecture("univa-vl-tiny").parameters(), traced["lora"]
    skeleton = add_adapters(vlmkit.build("univa-vl-tiny", device="meta"), {"language_model": Adapter(rank=4)})
    own = sum(value.numel() for name, value in skeleton.named_parameters() if is_adapter(name))
    assert own > 10_000
    learning = {part: of[1] for part, of in lora["parts"].items()}
    assert learning == {"encoder": 0, "connector": 0, "fusion": 0, "language_model": own}
    assert lora["parts"]["language_model"][0] == parameters.language_model + own
    assert lora["last"][1:] == [0, 2 * own], "bfloat16"


def test_a_process_that_planned_can_fork_workers_that_learn(traced: Any) -> None:
    assert traced["forked"] == 0


def test_the_peak_is_that_of_a_real_step(traced: Any) -> None:
    """Of torch's allocator. benchmarks/plan.py has twelve larger cases, and the resident memory."""
    assert traced["real"]["predicted"] == pytest.approx(traced["real"]["live"], rel=0.05)


def test_a_plan_as_json(traced: Any) -> None:
    found = traced["json"]
    assert (found["stage"], found["learns"], found["hardware"]["memory"]) == ("sft", list(PARTS), 141e9)
    assert [engine["engine"] for engine in found["engines"]] == ["ddp", "ddp", "zero2", "zero2", "fsdp2", "fsdp2", "zero3", "zero3"]
    assert found["chosen"]["engine"] == "ddp", "a small model is best kept whole"
    assert found["pace"]["price"] == pytest.approx(2 * found["pace"]["gpu_hours"])
    assert found["pace"]["gpu_hours"] == pytest.approx(16 * found["pace"]["hours"])
    for engine in found["engines"]:
        parts = [value for name, value in engine["memory"].items() if name != "total"]
        assert engine["memory"]["total"] == pytest.approx(sum(parts))


def test_where_nothing_fits_it_says_so(traced: Any) -> None:
    assert "Nothing fits: single takes least" in traced["words"]
    assert "Assumed:" in traced["words"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "MODEL"),
        ("univa-v", "unknown model 'univa-v'; did you mean 'univa-vl'?"),
        ("univa-vl --gpus 0", "expected a whole number from 1 up, got '0'"),
        ("univa-vl --gpu h300", "no GPU 'h300' is known; there are a100, h100, h200, b200"),
        ("univa-vl --gpu-memory 80XB", "expected bytes such as 80GB or 141GiB, got '80XB'"),
        ("univa-vl --stage tune", "no stage 'tune'; there are align, pretrain, sft, or name a file with --stages"),
        ("univa-vl --stage sft --learn connector", "not allowed with argument"),
        ("univa-vl --learn conector", "there is no part 'conector' that could learn"),
        ("univa-vl --learn ,", "nothing learns"),
        ("univa-vl --engine zero1", "no engine 'zero1'; there are single, ddp, zero2, fsdp2, zero3"),
        ("univa-vl --engine single --gpus 8", "engine 'single' is one GPU, and 8 are given"),
        ("univa-vl --mfu 40", "MFU is a share of the peak, more than 0 and at most 1, got 40.0"),
        ("univa-vl --mfu nan", "expected a number more than 0, got 'nan'"),
        ("univa-vl --length 100", "more than a row of 100; give a longer row or a smaller image"),
        ("univa-vl --connector mpl", "unknown connector 'mpl'; did you mean 'mlp'?"),
    ],
)
def test_wrong_arguments_get_one_sentence(capsys: pytest.CaptureFixture[str], line: str, words: str) -> None:
    assert main(["plan", *line.split()]) == 2
    printed = capsys.readouterr()
    assert words in printed.err
    assert not printed.out
