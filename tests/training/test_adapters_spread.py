"""Adapters of a model whose weights are spread over two processes: drawn, learning and merged as in one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import vlmkit
from tests.tiny import CONVERSATIONS, architecture, model
from vlmkit.model import VLM
from vlmkit.training.adapter import Adapter
from vlmkit.training.adapters import add_adapters, is_adapter, merge_adapters

RANKS = 2
ARCHITECTURE = architecture(connector="mlp")


def adapted(dora: bool, dtype: torch.dtype, seed: int) -> VLM:
    adapters = {part: Adapter(rank=2, dora=dora) for part in ("encoder", "connector", "language_model")}
    return add_adapters(model(ARCHITECTURE).to(dtype), adapters, seed)


def one_rank(rank: int, directory: str, dora: bool, dtype: torch.dtype) -> None:
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    from torch.distributed.tensor import distribute_tensor

    from vlmkit.training.adapters import draw_adapters

    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{directory}/meet", rank=rank, world_size=RANKS)
    mesh = init_device_mesh("cpu", (RANKS,))
    whole, spread = adapted(dora, dtype, 3), adapted(dora, dtype, 9)
    for block in [*spread.encoder.resblocks, *spread.language_model.model.layers]:
        fully_shard(block, mesh=mesh)
    fully_shard(spread, mesh=mesh)
    draw_adapters(spread, 3)
    own = dict(whole.named_parameters())
    found: dict[str, object] = {
        "drawn": sorted(name for name, value in spread.named_parameters() if not torch.equal(value.full_tensor(), own[name]))
    }
    batch = vlmkit.build_processor(ARCHITECTURE)(CONVERSATIONS)
    for made in (whole, spread):
        made.train()(**batch).loss.backward()
    gradients = [(value.grad.full_tensor(), own[name].grad) for name, value in spread.named_parameters() if value.requires_grad]
    found["gradients"] = len(gradients), max(float((one - other).abs().max()) for one, other in gradients)
    with torch.no_grad():
        for name, value in spread.named_parameters():
            if is_adapter(name):
                own[name].add_(0.1)
                value.copy_(distribute_tensor(own[name].detach(), mesh, value.placements, src_data_rank=None))
    own = dict(merge_adapters(whole).named_parameters())
    merged = {name: value.full_tensor() for name, value in merge_adapters(spread).named_parameters()}
    found["merged"] = own.keys() == merged.keys() and all(torch.equal(value, own[name]) for name, value in merged.items())
    Path(directory, f"{rank}.json").write_text(json.dumps(found))
    dist.destroy_process_group()


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dora", [False, True])
def test_spread_by_fsdp2_they_are_what_they_are_in_one_process(dora: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    torch.multiprocessing.spawn(one_rank, (str(tmp_path), dora, dtype), nprocs=RANKS)
    for rank in range(RANKS):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert found["drawn"] == []
        assert found["gradients"][0] == (3 if dora else 2) * 36
        assert found["gradients"][1] < (1e-6 if dtype == torch.float32 else 1e-2)
        assert found["merged"]
