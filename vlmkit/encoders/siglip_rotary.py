"""SigLIP (Zhai et al. 2023, arXiv:2303.15343) for images of any size: positions rotate queries and keys and are no table.

VideoLLaMA 3's tower (Zhang et al. 2025, arXiv:2501.13106), as transformers' VideoLlama3VisionModel computes it up to the norm after the
last block. That model then shrinks the grid, which here is the connector's part. Each frame of a film attends to itself alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from vlmkit.activations import TransformersActivation
from vlmkit.encoders import encoders
from vlmkit.encoders.base import HALF
from vlmkit.encoders.rotary import RotaryEncoder


@encoders.register("siglip_rotary")
@dataclass(frozen=True, kw_only=True)
class SiglipRotary(RotaryEncoder):
    """The defaults are the numbers of the tower in DAMO-NLP-SG/VideoLLaMA3-7B, which is SigLIP-so400m's but for the positions. The norm
    after the last block is applied to every selected layer."""

    width: int = 1152
    layers: int = 27
    heads: int = 16
    mlp: int = 4304
    patch: int = 14
    activation: TransformersActivation = "gelu_pytorch_tanh"
    norm_eps: float = 1e-6
    theta: float = 10000.0
    """Base of the rotary frequencies."""
    mean: tuple[float, float, float] = HALF
    std: tuple[float, float, float] = HALF

    clips: ClassVar[bool] = True
    names: ClassVar[dict[str, str]] = RotaryEncoder.names | {"norm_eps": "layer_norm_eps"}
    blocks_at: ClassVar[str] = "encoder.layers"
    headless: ClassVar[dict[str, Any]] = {}

    @staticmethod
    def model_class() -> Any:
        from transformers import VideoLlama3VisionModel

        return VideoLlama3VisionModel
