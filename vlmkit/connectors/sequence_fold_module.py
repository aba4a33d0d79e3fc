"""The module of `sequence_fold`: neighbours of a row side by side, MLP."""

from __future__ import annotations

from torch import nn

from vlmkit.activations import activation
from vlmkit.connectors.sequence_fold import SequenceFold
from vlmkit.features import Features


def build(spec: SequenceFold, dim_in: int, dim_out: int) -> nn.Module:
    return SequenceFoldModule(spec, dim_in, dim_out)


class SequenceFoldModule(nn.Module):
    def __init__(self, spec: SequenceFold, dim_in: int, dim_out: int) -> None:
        super().__init__()
        self.spec = spec
        hidden = spec.hidden or dim_out
        self.mlp = nn.Sequential(nn.Linear(dim_in * spec.fold, hidden), activation(spec.activation), nn.Linear(hidden, dim_out))

    def forward(self, features: Features) -> Features:
        """(N, D_v) -> (N / fold, D_lm). Rows divide, so that the tokens of all views fold as one sequence."""
        grids = tuple(self.spec.grid_out(grid) for grid in features.grids)
        count, dim = features.tokens.shape
        return Features(self.mlp(features.tokens.reshape(count // self.spec.fold, self.spec.fold * dim)), grids)
