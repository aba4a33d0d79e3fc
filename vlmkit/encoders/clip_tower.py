"""The tower of `clip`: transformers' layers with the norm before them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vlmkit.encoders.clip import Clip
from vlmkit.encoders.hf_tower import TransformersViTTower


def build(spec: Clip) -> ClipTower:
    return ClipTower(spec, spec.make())


class ClipTower(TransformersViTTower):
    def __init__(self, spec: Clip, model: Any) -> None:
        super().__init__(spec, model)
        self.pre_layrnorm: nn.Module = model.pre_layrnorm  # transformers' spelling: the name in every checkpoint

    def before(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.pre_layrnorm(tokens)
        return normed
