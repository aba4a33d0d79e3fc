"""SigLIP's vision transformer (Zhai et al. 2023, arXiv:2303.15343) as transformers' SiglipVisionModel computes it,
without the pooling head. It has no class token.

`layer=-1, final_norm=True` is transformers' last_hidden_state; `layer=-1, final_norm=False` is its hidden_states[-1].
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from vlmkit.activations import TransformersActivation
from vlmkit.encoders import encoders
from vlmkit.encoders.base import HALF, Positions
from vlmkit.encoders.hf import TransformersViT
from vlmkit.features import Grid


@encoders.register("siglip")
@dataclass(frozen=True, kw_only=True)
class Siglip(TransformersViT):
    """The defaults are the numbers of google/siglip-so400m-patch14-384, whose grid is 27x27: 378 of the 384 pixels."""

    width: int = 1152
    layers: int = 27
    heads: int = 16
    mlp: int = 4304
    patch: int = 14
    image_size: int = 384
    activation: TransformersActivation = "gelu_pytorch_tanh"
    norm_eps: float = 1e-6
    final_norm: bool = True
    positions: Positions = "fixed"
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF
    first_patch: Literal["keep", "drop"] = "keep"
    """Maya (arXiv:2412.07112) drops a class token that SigLIP does not have, and so the upper left patch: 255 of 256
    features, a sequence that stands on no rectangle."""

    def grid_out(self, grid: Grid) -> Grid:
        out = super().grid_out(grid)
        return out if self.first_patch == "keep" else Grid(1, 1, out.tokens - 1)

    @staticmethod
    def model_class() -> Any:
        from transformers import SiglipVisionModel

        return SiglipVisionModel
