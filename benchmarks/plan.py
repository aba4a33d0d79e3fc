"""The planner's memory of a training step beside what the step takes, on one CPU core.

    python benchmarks/plan.py --json plan.json

Three models of three families, each with only its connector learning and with everything, with and without recomputation. Every figure
comes from a process of its own: the prediction (meta device, nothing is allocated), the bytes of live tensors (torch's allocator, as its
profiler reports it), and the resident memory above what stood before the model was built (VmHWM; the C library is told to give back what
is freed, so that it is not the memory of another moment).
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import vlmkit
from vlmkit.architecture import PARTS, Architecture
from vlmkit.encoders.clip import Clip
from vlmkit.encoders.open_clip import OpenClip
from vlmkit.encoders.qwen2_vl import Qwen2VL
from vlmkit.planning import Job
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.policies.pad_square import PadSquare
from vlmkit.preprocess.policies.smart_resize import SmartResize
from vlmkit.recompute import recompute
from vlmkit.spec import Settings
from vlmkit.training.optimizers import build_optimizers, prepare_parts
from vlmkit.training.stage import Source, Stage

STAGES = {"connector": ("connector",), "everything": PARTS}
PICTURE = Size(height=336, width=448)


def words(arch: Architecture, **numbers: Any) -> Any:
    return arch.language_model.replace(config=Settings({**arch.language_model.config.to_dict(), **numbers}))


def models() -> dict[str, tuple[Architecture, int, int]]:
    """Name -> model, rows of a micro-batch, tokens of a row."""
    smart = SmartResize(factor=28, min_pixels=64 * 28 * 28, max_pixels=256 * 28 * 28)
    univa, llava, qwen = (vlmkit.architecture(name) for name in ("univa-vl-tiny", "llava-1.5-tiny", "qwen2-vl-tiny"))
    olmo = dict(
        hidden_size=640, intermediate_size=1728, num_hidden_layers=10, num_attention_heads=10, num_key_value_heads=5, vocab_size=8192
    )
    llama = dict(
        hidden_size=512, intermediate_size=2048, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=8, vocab_size=16384
    )
    qwen2 = dict(
        hidden_size=576, intermediate_size=1920, num_hidden_layers=10, num_attention_heads=9, num_key_value_heads=3, vocab_size=12288
    )
    turns = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}}
    return {
        "olmo3": (
            univa.replace(
                name="olmo3",
                policy=smart,
                encoder=OpenClip(width=512, layers=8, heads=8, image_size=224),
                language_model=words(univa, **olmo, sliding_window=4096, max_position_embeddings=4096),
            ),
            2,
            384,
        ),
        "llama": (
            llava.replace(
                name="llama",
                policy=PadSquare(size=224, fill="mean"),
                encoder=Clip(width=384, layers=8, heads=6, mlp=1536, image_size=224, layer=-2, keep_unused=True),
                language_model=words(llava, **llama, tie_word_embeddings=True),
            ),
            2,
            448,
        ),
        "qwen2": (
            qwen.replace(
                name="qwen2",
                policy=smart.replace(clip=qwen.policy.clip),
                encoder=Qwen2VL(width=384, layers=8, heads=6, mlp=1536),
                language_model=words(qwen, **qwen2, **turns),
            ),
            2,
            512,
        ),
    }


def job(name: str, stage: str, recompute: bool) -> Job:
    arch, rows, length = models()[name]
    text = length - arch.tokens(PICTURE)
    return Job(
        model=arch,
        learns=STAGES[stage],
        name=stage,
        length=length,
        micro_batch=rows,
        size=PICTURE,
        text_tokens=text,
        answer_tokens=text // 2,
        recompute=recompute,
        dtype="float32",
    )


def batch(of: Job) -> dict[str, Any]:
    """Rows of one picture and as much text as fills them, without padding, so that attention needs no mask."""
    processor = vlmkit.build_processor(of.model)
    image = np.random.default_rng(0).integers(0, 256, (of.size.height, of.size.width, 3), dtype=np.uint8)

    def made(question: int, answer: int) -> Any:
        asked = [{"type": "image", "image": image}, {"type": "text", "text": "q" * question}]
        turns = [{"role": "user", "content": asked}, {"role": "assistant", "content": "a" * answer}]
        return processor([turns] * of.micro_batch)

    answer = of.supervised_a_row - 1
    shorter = made(10, answer)["input_ids"].shape[1]
    found = made(10 + of.length - shorter, answer)
    assert found["input_ids"].shape == (of.micro_batch, of.length), (found["input_ids"].shape, of.length)
    return {key: value for key, value in found.items() if key not in ("segments", "attention_mask")}


class Step:
    """A model that learns, as the trainer has it."""

    def __init__(self, of: Job) -> None:
        rates = dict.fromkeys(of.learns, 1e-4)
        stage = Stage(name="plan", steps=9, batch_size=of.micro_batch, data=(Source(name="x"),), recompute=of.recompute, **rates)
        self.model = vlmkit.build(of.model, seed=0)
        parts = {part: getattr(self.model, part) for part in PARTS}
        if of.recompute:
            recompute(self.model)
        self.model.train()
        prepare_parts(stage, parts)
        self.optimizers = build_optimizers(stage, parts, fused=True)
        self.learning = [parameter for parameter in self.model.parameters() if parameter.requires_grad]

    def __call__(self, given: dict[str, Any]) -> None:
        self.model(**given).loss.backward()
        torch.nn.utils.clip_grad_norm_(self.learning, 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()


def predicted(of: Job) -> dict[str, float]:
    from vlmkit.planning.memory import memory
    from vlmkit.planning.trace import trace

    return {"predicted": memory("single", of, trace(of, repeated_keys=True), 1, of.micro_batch).total}


def live(of: Job, steps: int) -> dict[str, float]:
    """Bytes of tensors at the peak, from the events of torch's allocator."""
    given = batch(of)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step = Step(of)
        for _ in range(steps):
            step(given)
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return {"live": peak}


def resident(of: Job, steps: int) -> dict[str, float]:
    """Growth of the resident memory at the peak, above what stands after a first step of a small model."""
    libc = ctypes.CDLL(None)
    libc.mallopt(-3, 65536)  # M_MMAP_THRESHOLD: whatever is larger goes back to the system when it is freed
    libc.mallopt(-1, 65536)  # M_TRIM_THRESHOLD
    given = batch(of)
    small = vlmkit.architecture("univa-vl-tiny")
    warm_up = Job(model=small, length=256, size=Size(112, 112), text_tokens=200, recompute=of.recompute, dtype="float32")
    first = Step(warm_up)
    first(batch(warm_up))
    del first
    gc.collect()
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM begins anew
    step = Step(of)
    for _ in range(steps):
        step(given)
    return {"resident": status("VmHWM") - before}


def status(field: str) -> int:
    """Bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field + ":"))


def in_a_process(what: str, name: str, stage: str, recompute: bool, steps: int) -> dict[str, float]:
    command = [sys.executable, __file__, "--measure", what, "--model", name, "--stage", stage, "--steps", str(steps)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "1"}
    done = subprocess.run([*command, *(["--recompute"] if recompute else [])], capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", choices=list(models()), help="one model; all without")
    parser.add_argument("--stage", choices=list(STAGES), help="one stage; both without")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--recompute", action="store_true")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--measure", choices=["predicted", "live", "resident"], help="one figure, in this process")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.measure:
        of = job(arguments.model, arguments.stage, arguments.recompute)
        functions = {"live": live, "resident": resident}
        print(json.dumps(predicted(of) if arguments.measure == "predicted" else functions[arguments.measure](of, arguments.steps)))
        return
    rows = []
    print(f"{'model':8} {'learns':11} {'recompute':9} {'predicted':>10} {'live':>16} {'resident':>16}   MB, and prediction / measured")
    for name in [arguments.model] if arguments.model else models():
        for stage in [arguments.stage] if arguments.stage else STAGES:
            for recomputes in (False, True):
                row: dict[str, Any] = {"model": name, "stage": stage, "recompute": recomputes}
                for what in ("predicted", "live", "resident"):
                    row |= in_a_process(what, name, stage, recomputes, arguments.steps)
                rows.append(row)
                shown = [f"{row[what] / 1e6:8.0f} {row['predicted'] / row[what]:7.3f}" for what in ("live", "resident")]
                print(f"{name:8} {stage:11} {recomputes!s:9} {row['predicted'] / 1e6:10.0f} {shown[0]:>16} {shown[1]:>16}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
