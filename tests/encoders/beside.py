"""What a tower beside transformers' own is asked with: one configuration, the same images, the same weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from drawn import patchify
from torch import Tensor

from vlmkit.encoders.base import Encoder
from vlmkit.features import Grid

NUMBERS = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 64, "patch_size": 4, "image_size": 20}


def filled(spec: Encoder, weights: Mapping[str, Tensor]) -> Any:
    """The tower of a spec with those of the weights that it has."""
    tower = spec.build().eval()
    tower.load_state_dict({name: weights[name] for name in tower.state_dict()})
    return tower


def images(grid: Grid) -> Tensor:
    """(2, 3, rows * 4, columns * 4)"""
    return torch.randn(2, 3, grid.rows * 4, grid.columns * 4, generator=torch.Generator().manual_seed(3))


def features(tower: Any, grid: Grid) -> Tensor:
    """(2, tokens, D_v) of these images."""
    with torch.no_grad():
        found: Tensor = tower(patchify(images(grid), 4), (grid, grid)).tokens
    return found.view(2, -1, tower.spec.dim_out)
