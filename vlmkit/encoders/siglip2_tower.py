"""What the tower of `siglip2` has of its own: patches pass a linear layer."""

from __future__ import annotations

from torch import Tensor

from vlmkit.encoders.hf_tower import Embeddings


class LinearEmbeddings(Embeddings):
    """A linear layer over patches that are laid out pixel by pixel, in place of a convolution."""

    def project(self, patches: Tensor) -> Tensor:
        tokens: Tensor = self.patch_embedding(patches.view(len(patches), 3, -1).transpose(1, 2).flatten(1))
        return tokens
