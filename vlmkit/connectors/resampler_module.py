"""The module of `resampler`: one cross-attention of queries and features that both have positions."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from vlmkit.connectors.layers import MultiheadAttention
from vlmkit.connectors.perceiver_module import frames, padded
from vlmkit.connectors.positions import sincos_2d
from vlmkit.connectors.resampler import Resampler
from vlmkit.encoders.positions import resample
from vlmkit.features import Features, Grid
from vlmkit.spec import SpecError


def build(spec: Resampler, dim_in: int, dim_out: int) -> nn.Module:
    if problems := spec.problems(dim_in, dim_out):
        raise SpecError(problems[0])
    return ResamplerModule(spec, dim_in, dim_out)


class ResamplerModule(nn.Module):
    """Names of weights are Qwen-VL's, whose `proj` is a matrix from the right. Its table of positions is computed here."""

    def __init__(self, spec: Resampler, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.spec = spec
        self.dim = dim_out
        self.query = nn.Parameter(torch.empty(spec.side**2, dim_out))
        nn.init.trunc_normal_(self.query, std=0.02)
        self.kv_proj = nn.Linear(dim_in, dim_out, bias=False)
        self.attn = MultiheadAttention(spec.heads, dim_out)
        self.ln_q = nn.LayerNorm(dim_out, eps=spec.norm_eps)
        self.ln_kv = nn.LayerNorm(dim_out, eps=spec.norm_eps)
        self.ln_post = nn.LayerNorm(dim_out, eps=spec.norm_eps)
        self.proj = nn.Linear(dim_out, dim_out, bias=False)

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (frames * queries, D_lm). Each layer is called once, however the views differ: ZeRO-3 needs that."""
        grids = tuple(self.spec.grid_out(grid) for grid in features.grids)
        read = self.ln_kv(self.kv_proj(features.tokens))
        if not grids:
            return Features(self.proj(self.ln_post(read)), ())
        values, mask = padded(list(frames(Features(read, features.grids))), 0)
        tables = {grid: self.places(grid, read) for grid in dict.fromkeys(features.grids)}
        places, _ = padded([tables[grid] for grid in features.grids for _ in range(grid.frames)], 0)
        queries = self.ln_q(self.query) + self.places(Grid(1, self.spec.side, self.spec.side), read)
        attended = self.attn(queries.expand(len(values), -1, -1), values + places, values, mask)
        return Features(self.proj(self.ln_post(attended)).flatten(0, 1), grids)

    def places(self, grid: Grid, like: Tensor) -> Tensor:
        """Positions of one frame of a view, (prefix + rows * columns, D_lm): nothing for what stands on no grid."""
        side = self.spec.side
        table = sincos_2d(side, side, self.dim, device=like.device)
        table = resample(table, Grid(1, side, side), replace(grid, frames=1, prefix=0), "bicubic")
        return torch.cat([table.new_zeros(grid.prefix, self.dim), table]).to(like.dtype)
