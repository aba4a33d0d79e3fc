"""Qwen2-VL's vision transformer (Wang et al. 2024, arXiv:2409.12191) as transformers' Qwen2VisionTransformerPretrainedModel computes it
up to its last block; the merger behind that is a connector, `patch_merger`.

Made for pictures of any size and for films. A patch is two frames of 14x14 pixels; of a picture it is the picture twice. Positions
rotate queries and keys by row and column, whichever frame it is, and each frame attends to itself alone. Published code orders patches
by the 2x2 blocks that are merged later, vlmkit row by row: attention does not see the difference.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Self

from vlmkit.activations import TransformersActivation
from vlmkit.encoders import encoders
from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD
from vlmkit.encoders.rotary import RotaryEncoder
from vlmkit.spec import SpecError


@encoders.register("qwen2_vl")
@dataclass(frozen=True, kw_only=True)
class Qwen2VL(RotaryEncoder):
    """The defaults are the numbers of the tower in Qwen/Qwen2-VL-7B-Instruct, which is that of 2B and 72B as well."""

    width: int = 1280
    layers: int = 32
    heads: int = 16
    mlp: int = 5120
    patch: int = 14
    activation: TransformersActivation = "quick_gelu"
    theta: float = 10000.0
    """Base of the rotary frequencies."""
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    clips: ClassVar[bool] = True
    patch_frames: ClassVar[int] = 2
    blocks_at: ClassVar[str] = "blocks"
    inside: ClassVar[dict[str, str] | None] = {r"^(model\.)?visual\.": ""}
    names: ClassVar[dict[str, str]] = {
        "width": "embed_dim",
        "layers": "depth",
        "heads": "num_heads",
        "patch": "patch_size",
        "activation": "hidden_act",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mlp % self.width:
            raise SpecError(f"qwen2_vl.mlp: {self.mlp} hidden channels, expected a multiple of the width {self.width}")

    @staticmethod
    def model_class() -> Any:
        from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VisionTransformerPretrainedModel

        return Qwen2VisionTransformerPretrainedModel

    def numbers(self) -> dict[str, Any]:
        return super().numbers() | {"mlp_ratio": self.mlp // self.width, "temporal_patch_size": self.patch_frames}

    @classmethod
    def from_config(cls, config: Any, **fields: Any) -> Self:
        if config.in_channels != 3 or config.temporal_patch_size != cls.patch_frames:
            raise SpecError(
                f"in_channels, temporal_patch_size: encoder {cls.kind!r} has patches of 3 colours and {cls.patch_frames} frames, but "
                f"the config states {config.in_channels} and {config.temporal_patch_size}"
            )
        return super().from_config(config, **({"mlp": config.embed_dim * config.mlp_ratio} | fields))

    def make(self) -> Any:
        """Blocks alone are taken of it: its merger is as small as one can be."""
        cls = self.model_class()
        least = {"hidden_size": 1, "spatial_merge_size": 1}
        return cls(cls.config_class(**self.numbers() | least | {"depth": self.blocks}, attn_implementation=self.attention))

    def needs(self, name: str) -> bool:
        return super().needs(name) and not name.startswith("merger.")
