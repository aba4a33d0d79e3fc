"""The module of `bilinear_mlp`: each run of equal grids is shrunk, then all tokens pass the MLP."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from vlmkit.connectors.bilinear_mlp import BilinearMlp
from vlmkit.connectors.blocks import equal_grids
from vlmkit.features import Features, Grid


def build(spec: BilinearMlp, dim_in: int, dim_out: int) -> nn.Module:
    return BilinearMlpModule(spec, dim_in, dim_out)


class BilinearMlpModule(nn.Module):
    def __init__(self, spec: BilinearMlp, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.spec = spec
        self.mlp = spec._mlp.build(dim_in, dim_out)

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (T, D_lm)"""
        grids = tuple(self.spec.grid_out(grid) for grid in features.grids)
        pieces = [shrink(tokens, grid, self.spec.ratio_of(grid)) for grid, tokens in equal_grids(features)]
        tokens = torch.cat(pieces) if len(pieces) > 1 else pieces[0] if pieces else features.tokens
        shrunk: Features = self.mlp(Features(tokens, grids))
        return shrunk


def shrink(tokens: Tensor, grid: Grid, ratio: int) -> Tensor:
    """(views * grid.tokens, D) of one grid -> (views * grid.tokens / ratio^2, D), each frame by itself."""
    if ratio == 1:
        return tokens
    frames = tokens.view(-1, grid.rows, grid.columns, tokens.shape[-1]).permute(0, 3, 1, 2)
    shrunk = F.interpolate(frames, size=(grid.rows // ratio, grid.columns // ratio), mode="bilinear", align_corners=False)
    return shrunk.permute(0, 2, 3, 1).flatten(0, 2)
