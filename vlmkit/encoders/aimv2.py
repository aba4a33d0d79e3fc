"""AIMv2's vision transformer (Fini et al. 2024, arXiv:2411.14402) as transformers' Aimv2VisionModel computes it, without the
pooling head.

Norms are RMSNorm, one of them between patches and positions; MLPs are gated; unless told, only the patches have a bias. `layer=-1,
final_norm=True` is transformers' last_hidden_state; none of its hidden_states carries the last norm.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

from vlmkit.activations import TransformersActivation
from vlmkit.encoders import encoders
from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD, Positions, refuse_frames
from vlmkit.encoders.hf import TransformersViT
from vlmkit.features import Grid
from vlmkit.spec import SpecError


@encoders.register("aimv2")
@dataclass(frozen=True, kw_only=True)
class Aimv2(TransformersViT):
    """The defaults are the numbers of apple/aimv2-large-patch14-336: 309,525,504 parameters."""

    width: int = 1024
    layers: int = 24
    heads: int = 8
    mlp: int = 2816
    patch: int = 14
    image_size: int = 336
    activation: TransformersActivation = "silu"
    """Of the gate."""
    norm_eps: float = 1e-5
    final_norm: bool = True
    table: Literal["learned", "sincos"] = "learned"
    """Learned positions of one grid, or sines and cosines of any, as aimv2-large-patch14-native has them: `positions` and
    `image_size` then mean nothing."""
    qkv_bias: bool = False
    """Of the linear layers in attention; no published model has one."""
    mlp_bias: bool = False
    positions: Positions = "fixed"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD

    names: ClassVar[dict[str, str]] = TransformersViT.names | {"norm_eps": "rms_norm_eps", "qkv_bias": "qkv_bias", "mlp_bias": "mlp_bias"}
    later: ClassVar[frozenset[str]] = TransformersViT.later | {"qkv_bias", "mlp_bias"}
    norm_at: ClassVar[str] = "rms_norm"
    headless: ClassVar[dict[str, Any]] = {"use_head": False}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.table == "sincos" and self.width % 4:
            raise SpecError(f"aimv2.width: sines and cosines of rows and columns need a multiple of 4, got {self.width}")

    def grid_out(self, grid: Grid) -> Grid:
        if self.table == "learned":
            return super().grid_out(grid)
        refuse_frames(self.kind, grid)
        return grid

    @staticmethod
    def model_class() -> Any:
        from transformers import Aimv2VisionModel

        return Aimv2VisionModel

    def numbers(self) -> dict[str, Any]:
        return super().numbers() | {"is_native": self.table == "sincos"}

    @classmethod
    def from_config(cls, config: Any, **fields: Any) -> Self:
        return super().from_config(config, **({"table": "sincos" if config.is_native else "learned"} | fields))
