"""The module of `conv_patch_merger`: convolution, norm, MLP, positions."""

from __future__ import annotations

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.activations import activation
from vlmkit.connectors.blocks import merge_blocks
from vlmkit.connectors.conv_patch_merger import ConvPatchMerger
from vlmkit.connectors.positions import sincos_2d
from vlmkit.features import Features, Grid
from vlmkit.spec import SpecError


def build(spec: ConvPatchMerger, dim_in: int, dim_out: int) -> nn.Module:
    if problems := spec.problems(dim_in, dim_out):
        raise SpecError(" ".join(problems))
    return ConvPatchMergerModule(spec, dim_in, dim_out)


class WindowConv2d(nn.Conv2d):
    """A convolution whose stride is its kernel, over windows that were cut already: one matrix product.

    Views of all grids go through in one call, and it is several times faster than `conv2d` on images of one window.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(T, D_v, kernel, kernel) -> (T, D_v, 1, 1)"""
        return functional.linear(input.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


class ConvPatchMergerModule(nn.Module):
    def __init__(self, spec: ConvPatchMerger, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.spec = spec
        self.conv = WindowConv2d(dim_in, dim_in, kernel_size=spec.kernel, stride=spec.kernel)
        self.norm = nn.LayerNorm(dim_in, eps=spec.norm_eps)
        self.mlp = nn.Sequential(nn.Linear(dim_in, dim_out), activation(spec.activation), nn.Linear(dim_out, dim_out))

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (N / kernel^2, D_lm)"""
        grids = tuple(self.spec.grid_out(grid) for grid in features.grids)
        kernel = self.spec.kernel
        windows = rearrange(merge_blocks(features, kernel, "c dh dw"), "n (c dh dw) -> n c dh dw", dh=kernel, dw=kernel)
        tokens = self.mlp(self.norm(self.conv(windows).flatten(1)))
        if self.spec.positions == "sincos2d" and grids:
            tokens = tokens + self.positions(grids, tokens)
        return Features(tokens, grids)

    def positions(self, grids: tuple[Grid, ...], tokens: Tensor) -> Tensor:
        """(T, D_lm) of every token's place, computed in float32 and given in the dtype of `tokens`."""
        tables = {grid: sincos_2d(grid.rows, grid.columns, tokens.shape[-1], device=tokens.device).to(tokens.dtype) for grid in set(grids)}
        return torch.cat([tables[grid].repeat(grid.frames, 1) for grid in grids])
