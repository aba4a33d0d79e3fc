"""Convolutional patch merger: a strided convolution halves the grid, then LayerNorm, a 2-layer MLP and 2D positions.

The merger of Olmo-3.1-UNIVA-VL, as its model card describes it: Conv2d(kernel 2, stride 2) -> flatten -> LayerNorm ->
Linear -> GELU -> Linear to the language model's width -> plus 2D sine and cosine positions (MAE, arXiv:2111.06377).
Grid (F, H, W) -> (F, H/2, W/2). From 1280 to 5120 channels it has 39,335,680 parameters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from einops import rearrange
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.activations import Activation, activation
from vlmkit.connectors import connectors
from vlmkit.connectors.base import Connector
from vlmkit.connectors.blocks import merge_blocks, merged_grid
from vlmkit.connectors.positions import sincos_2d
from vlmkit.features import Features, Grid
from vlmkit.spec import SpecError


@connectors.register("conv_patch_merger")
@dataclass(frozen=True, kw_only=True)
class ConvPatchMerger(Connector):
    """Conv2d -> LayerNorm -> Linear -> activation -> Linear, plus positions."""

    kernel: int = 2
    """Patches merged along each side: kernel and stride of the convolution."""
    norm_eps: float = 1e-5
    """Epsilon of the LayerNorm between the convolution and the MLP."""
    activation: Activation = "gelu"
    """Between the two linear layers."""
    positions: Literal["sincos2d", "none"] = "sincos2d"
    """Added to the tokens after the MLP, at the language model's width; computed for each view's merged grid, not learned."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kernel < 1:
            raise SpecError(f"conv_patch_merger.kernel: expected 1 or more, got {self.kernel}")
        if self.norm_eps <= 0:
            raise SpecError(f"conv_patch_merger.norm_eps: expected more than 0, got {self.norm_eps}")

    @property
    def merge(self) -> int:
        return self.kernel

    def grid_out(self, grid: Grid) -> Grid:
        return merged_grid(self.kind, grid, self.kernel)

    def problems(self, dim_in: int, dim_out: int) -> list[str]:
        if self.positions == "none" or dim_out % 4 == 0:
            return []
        return [
            f"connector 'conv_patch_merger' adds sine and cosine of row and column, which takes a width that is a multiple of 4, "
            f"but the language model is {dim_out} wide. Use positions='none'."
        ]

    def build(self, dim_in: int, dim_out: int) -> nn.Module:
        if problems := self.problems(dim_in, dim_out):
            raise SpecError(" ".join(problems))
        return ConvPatchMergerModule(self, dim_in, dim_out)


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
