"""Pixtral's vision transformer (Agrawal et al. 2024, arXiv:2410.07073) as transformers' PixtralVisionModel computes it.

Made for images of any size: positions rotate queries and keys and are no table, so a grid needs no resampling. A norm
stands before the blocks and none after them; norms are RMSNorm, MLPs are gated, nothing has a bias.

Published code packs all images into one sequence under a block-diagonal mask; here attention stays within a view without one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from vlmkit.activations import TransformersActivation
from vlmkit.encoders import encoders
from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD
from vlmkit.encoders.rotary import RotaryEncoder
from vlmkit.spec import SpecError


@encoders.register("pixtral")
@dataclass(frozen=True, kw_only=True)
class Pixtral(RotaryEncoder):
    """The defaults are the numbers of the tower in mistralai/Pixtral-12B-2409."""

    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp: int = 4096
    patch: int = 16
    activation: TransformersActivation = "silu"
    """Of the gate. transformers' config class has "gelu" by default; the published model is trained with "silu"."""
    theta: float = 10000.0
    """Base of the rotary frequencies."""
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    blocks_at: ClassVar[str] = "transformer.layers"

    @classmethod
    def from_config(cls, config: Any, **fields: Any) -> Self:
        """The spec of a transformers vision config. Raises SpecError for a `head_dim` of its own, with which transformers' class fails."""
        spec = super().from_config(config, **fields)
        if config.head_dim != spec.width // spec.heads:
            raise SpecError(f"head_dim: {spec.heads} heads of {spec.width} channels have {spec.width // spec.heads}, not {config.head_dim}")
        return spec

    @staticmethod
    def model_class() -> Any:
        from transformers import PixtralVisionModel

        return PixtralVisionModel
