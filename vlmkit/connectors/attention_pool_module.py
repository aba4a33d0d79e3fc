"""The module of `attention_pool`: one attention within each window, a gated MLP. Names of weights are upstream's."""

from __future__ import annotations

from einops import rearrange
from torch import Tensor, nn

from vlmkit.activations import activation
from vlmkit.connectors.attention_pool import AttentionPool
from vlmkit.connectors.blocks import merge_blocks
from vlmkit.features import Features
from vlmkit.spec import SpecError


def build(spec: AttentionPool, dim_in: int, dim_out: int) -> nn.Module:
    if problems := spec.problems(dim_in, dim_out):
        raise SpecError(problems[0])
    return AttentionPoolModule(spec, dim_in, dim_out)


class AttentionPoolModule(nn.Module):
    def __init__(self, spec: AttentionPool, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.spec = spec
        width = spec.width or dim_in
        self.image_pooling_2d = WindowAttention(spec.heads, dim_in, width)
        self.image_projector = GatedMlp(spec, width, dim_out)

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (N / r^2, D_lm)"""
        grids = tuple(self.spec.grid_out(grid) for grid in features.grids)
        windows = rearrange(merge_blocks(features, self.spec.ratio, "dh dw c"), "t (n c) -> t n c", n=self.spec.ratio**2)
        return Features(self.image_projector(self.image_pooling_2d(windows)), grids)


class WindowAttention(nn.Module):
    def __init__(self, heads: int, dim_in: int, width: int) -> None:
        super().__init__()
        self.heads = heads
        self.wq = nn.Linear(dim_in, width)
        self.wk = nn.Linear(dim_in, width)
        self.wv = nn.Linear(dim_in, width)
        self.wo = nn.Linear(width, width)

    def forward(self, windows: Tensor) -> Tensor:
        """Windows (T, r^2, D_v) -> what the mean of each reads of it, (T, width)."""
        query = self.wq(windows.mean(1, keepdim=True))
        queries, keys, values = (
            rearrange(one, "t n (heads d) -> t heads n d", heads=self.heads) for one in (query, self.wk(windows), self.wv(windows))
        )
        # In batches of whole windows kernels of long sequences would be asked for many short ones: r^2 products a head are as much.
        weights = (queries * keys).sum(-1, keepdim=True) * keys.shape[-1] ** -0.5
        read = (weights.float().softmax(dim=2).to(values.dtype) * values).sum(2)
        out: Tensor = self.wo(rearrange(read, "t heads d -> t (heads d)"))
        return out


class GatedMlp(nn.Module):
    def __init__(self, spec: AttentionPool, dim_in: int, dim_out: int) -> None:
        super().__init__()
        hidden = spec.hidden or 4 * dim_out
        self.w1 = nn.Linear(dim_in, hidden, bias=False)
        self.w2 = nn.Linear(hidden, dim_out, bias=False)
        self.w3 = nn.Linear(dim_in, hidden, bias=False)
        self.activation = activation(spec.activation)

    def forward(self, tokens: Tensor) -> Tensor:
        """(T, width) -> (T, D_lm)"""
        out: Tensor = self.w2(self.activation(self.w1(tokens)) * self.w3(tokens))
        return out
