"""The tower of `clip`: transformers' layers with the norm before them."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from vlmkit.encoders.clip import Clip
from vlmkit.encoders.hf_tower import TransformersViTTower
from vlmkit.encoders.padding_marks import PaddingMarks
from vlmkit.features import View


def build(spec: Clip) -> ClipTower:
    return ClipTower(spec, spec.make())


class ClipTower(TransformersViTTower):
    def __init__(self, spec: Clip, model: Any) -> None:
        super().__init__(spec, model)
        self.pre_layrnorm: nn.Module = model.pre_layrnorm  # transformers' spelling: the name in every checkpoint
        self.marks = None if spec.padding is None else PaddingMarks(spec)

    def before(self, tokens: Tensor) -> Tensor:
        normed: Tensor = self.pre_layrnorm(tokens)
        return normed

    def encode(self, patches: Tensor, views: tuple[View, ...]) -> Tensor:
        features = super().encode(patches, views)
        return features if self.marks is None else self.marks(features, views)
