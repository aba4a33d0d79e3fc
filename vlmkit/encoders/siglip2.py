"""SigLIP 2's NaFlex vision transformer (Tschannen et al. 2025, arXiv:2502.14786) as transformers' Siglip2VisionModel computes it, without
the pooling head: patches of views of any size, a table of positions resampled bilinear with antialias to each view's grid.

transformers fills every image up to `max_num_patches` and masks; here views of all sizes pass each block in one call, and nothing is filled
up. SigLIP 2 of a fixed size (google/siglip2-base-patch16-224) is the model of SigLIP: the encoder `siglip`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from vlmkit.activations import TransformersActivation
from vlmkit.encoders import encoders
from vlmkit.encoders.base import HALF, Positions
from vlmkit.encoders.hf import TransformersEncoder, TransformersViT
from vlmkit.spec import SpecError


@encoders.register("siglip2")
@dataclass(frozen=True, kw_only=True)
class Siglip2(TransformersViT):
    """The defaults are the numbers of google/siglip2-base-patch16-naflex.

    `layer=-1, final_norm=True` is transformers' last_hidden_state; `layer=-1, final_norm=False` is its hidden_states[-1].
    """

    width: int = 768
    layers: int = 12
    heads: int = 12
    mlp: int = 3072
    patch: int = 16
    image_size: int = 256
    """Side in pixels of the square that the table of positions stands for: 256 for transformers' num_patches of 256."""
    activation: TransformersActivation = "gelu_pytorch_tanh"
    norm_eps: float = 1e-6
    final_norm: bool = True
    positions: Positions = "bilinear_antialias"
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF

    names: ClassVar[dict[str, str]] = TransformersEncoder.names | {"norm_eps": "layer_norm_eps"}

    def numbers(self) -> dict[str, Any]:
        return super().numbers() | {"num_patches": self.native_grid.tokens}

    @classmethod
    def from_config(cls, config: Any, **fields: Any) -> Self:
        side = math.isqrt(config.num_patches)
        if side**2 != config.num_patches:
            raise SpecError(f"num_patches: expected a square number, the table of positions is one, got {config.num_patches}")
        return super().from_config(config, **({"image_size": side * config.patch_size} | fields))

    @staticmethod
    def model_class() -> Any:
        from transformers import Siglip2VisionModel

        return Siglip2VisionModel
