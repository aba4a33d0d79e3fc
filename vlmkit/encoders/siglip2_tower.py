"""The tower of `siglip2`: transformers' layers, behind patches that pass a linear layer."""

from __future__ import annotations

from torch import Tensor

from vlmkit.encoders.hf_tower import Embeddings, TransformersViTTower
from vlmkit.encoders.siglip2 import Siglip2


def build(spec: Siglip2) -> TransformersViTTower:
    model = spec.make()
    tower = TransformersViTTower(spec, model)
    tower.embeddings = LinearEmbeddings(spec, model.embeddings)
    return tower


class LinearEmbeddings(Embeddings):
    """A linear layer over patches that are laid out pixel by pixel, in place of a convolution."""

    def project(self, patches: Tensor) -> Tensor:
        tokens: Tensor = self.patch_embedding(patches.view(len(patches), 3, -1).transpose(1, 2).flatten(1))
        return tokens
