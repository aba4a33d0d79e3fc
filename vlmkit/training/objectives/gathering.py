"""Rows of all processes, through which gradients flow back to whoever made them.

The mean over processes of what each one's own rows lose against all rows is the loss of the whole batch, and so are its gradients, which
engines average. Each process gives as many rows, so the collectives depend on no data.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor


def every(rows: Tensor) -> Tensor:
    """Rows (B, D) of this process -> (world * B, D), those of rank 0 first."""
    if not dist.is_initialized() or dist.get_world_size() == 1:
        return rows
    gathered: Tensor = _Gathered.apply(rows)
    return gathered


def numbers_of_own(rows: Tensor) -> Tensor:
    """(B,): where the rows of this process stand among those of all."""
    first = dist.get_rank() * len(rows) if dist.is_initialized() else 0
    return first + torch.arange(len(rows), device=rows.device)


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        rows = rows.contiguous()
        pieces = [torch.empty_like(rows) for _ in range(dist.get_world_size())]
        dist.all_gather(pieces, rows)
        ctx.length = len(rows)
        return torch.cat(pieces)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        first = dist.get_rank() * ctx.length
        own: Tensor = summed[first : first + ctx.length]
        return own
