"""One of two processes: `python -m tests.distributed.worker RANK PORT OUT CASE...`. Writes what it saw of each case, one line of JSON.

A case is a model and two batches, one a rank. Each rank also runs an unsharded copy of the model on both batches, which is what one
process would have seen.
"""

from __future__ import annotations

import copy
import json
import os
import sys
import time
from collections import Counter
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import vlmkit
from tests.distributed.cases import CASES, ZERO3, Case
from tests.tiny import draw
from vlmkit.model import VLM

SECONDS = 60
"""A rank that waits longer for the other one fails."""


def main() -> None:
    rank, port, out, *names = sys.argv[1:]
    torch.set_num_threads(1)
    os.environ |= {"DS_ACCELERATOR": "cpu", "RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=int(rank), world_size=2, timeout=timedelta(seconds=SECONDS))
    with open(out, "w", encoding="utf-8") as file:
        for name in names:
            print(json.dumps({"case": name}), file=file, flush=True)
            print(json.dumps({"case": name} | run((CASES | ZERO3)[name])), file=file, flush=True)
    dist.barrier()
    dist.destroy_process_group()


def run(case: Case) -> dict[str, Any]:
    begun = time.perf_counter()
    arch = case.architecture()
    plain = vlmkit.build(arch, seed=0).train()
    draw(plain)
    processor = vlmkit.build_processor(arch)
    batches = [processor(conversations, pack=case.pack) for conversations in case.rows]
    whole = copy.deepcopy(plain)
    losses = []
    for batch in batches:
        loss = whole(**batch).loss
        (loss / 2).backward()
        losses.append(float(loss))
    wanted = {name: parameter.grad for name, parameter in whole.named_parameters() if parameter.requires_grad}
    rank = dist.get_rank()
    calls: Counter[str] = Counter()
    wrapped: Any
    if case.engine == "zero3":
        return {"calls": {}} | zero3(plain, batches[rank], losses[rank], wanted)
    if case.engine == "ddp":
        wrapped = DistributedDataParallel(plain)
    else:
        for part, module in shard(plain).items():
            module.register_forward_pre_hook(lambda *_, part=part: calls.update([part]))
        wrapped = plain
    loss = wrapped(**batches[rank]).loss
    loss.backward()
    found = {name: full(parameter.grad) for name, parameter in plain.named_parameters() if parameter.requires_grad}
    far = {name: apart(found[name], grad) for name, grad in wanted.items()}
    worst = max(far, key=lambda name: far[name])
    return {
        "loss": abs(float(loss) - losses[rank]),
        "gradient": far[worst],
        "worst": worst,
        "calls": dict(calls),
        "seconds": round(time.perf_counter() - begun, 2),
    }


def shard(model: VLM) -> dict[str, nn.Module]:
    """Every block of a list of blocks, every part, and then the whole, from the inside out: what is sharded by itself, by name."""
    lists = {name: module for name, module in model.named_modules() if isinstance(module, nn.ModuleList) and module is not model.encoder}
    found = {f"{name}.{number}": child for name, module in lists.items() for number, child in enumerate(module)}
    found |= {f"fusion.{name}": module for name, module in model.fusion.named_children() if not isinstance(module, nn.ModuleList)}
    found |= {f"encoder.{number}": tower for number, tower in enumerate(model.towers)}
    found |= {"connector": model.connector, "fusion": model.fusion}
    found = {name: module for name, module in found.items() if next(module.parameters(), None) is not None}
    for module in found.values():
        fully_shard(module)
    fully_shard(model)
    return found


def zero3(model: VLM, batch: Any, wanted_loss: float, wanted: dict[str, Tensor | None]) -> dict[str, Any]:
    """DeepSpeed, with buckets as small as the models are, so that nothing is gathered ahead for convenience."""
    import deepspeed
    from deepspeed.utils import safe_get_full_grad

    config = {
        "train_micro_batch_size_per_gpu": 1,
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-4, "torch_adam": True}},
        "zero_optimization": {
            "stage": 3,
            "overlap_comm": False,
            "reduce_bucket_size": 1_000_000,
            "stage3_prefetch_bucket_size": 1_000_000,
            "stage3_param_persistence_threshold": 0,
        },
    }
    learning = [parameter for parameter in model.parameters() if parameter.requires_grad]
    engine, *_ = deepspeed.initialize(model=model, model_parameters=learning, config=config)
    loss = engine(**batch).loss
    engine.backward(loss)
    found = {name: safe_get_full_grad(parameter) for name, parameter in model.named_parameters() if parameter.requires_grad}
    far = {name: apart(found[name], grad) for name, grad in wanted.items()}
    worst = max(far, key=lambda name: far[name])
    engine.destroy()
    return {"loss": abs(float(loss) - wanted_loss), "gradient": far[worst], "worst": worst}


def full(gradient: Any) -> Tensor:
    """The whole of a gradient that is spread over ranks; zeros where there is none."""
    whole: Tensor = gradient.full_tensor() if hasattr(gradient, "full_tensor") else gradient
    return whole


def apart(found: Tensor | None, wanted: Tensor | None) -> float:
    """Largest difference, relative to the largest value; a gradient that is not there is one of zeros."""
    if found is None or wanted is None:
        present = found if wanted is None else wanted
        return 0.0 if present is None else float(present.abs().max())
    return float((found - wanted).abs().max() / (wanted.abs().max() + 1e-3))


if __name__ == "__main__":
    main()
