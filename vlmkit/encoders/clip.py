"""CLIP's vision transformer (Radford et al. 2021, arXiv:2103.00020) as transformers' CLIPVisionModel computes it.

LLaVA and its family take the layer before the last without the final norm and drop the class token: layer=-2. In
transformers no hidden state of CLIP carries the final norm; it is applied to the pooled class token only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from vlmkit.activations import TransformersActivation
from vlmkit.encoders import encoders
from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD, Positions
from vlmkit.encoders.hf import TransformersViT


@encoders.register("clip")
@dataclass(frozen=True, kw_only=True)
class Clip(TransformersViT):
    """The defaults are the numbers of openai/clip-vit-large-patch14-336."""

    width: int = 1024
    layers: int = 24
    heads: int = 16
    mlp: int = 4096
    patch: int = 14
    image_size: int = 336
    activation: TransformersActivation = "quick_gelu"
    norm_eps: float = 1e-5
    final_norm: bool = False
    class_token: Literal["drop", "keep"] = "drop"
    positions: Positions = "fixed"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    padding: Literal["own", "next"] | None = None
    """Add learned embeddings to the features of patches that show padding alone, and of those that show some; None: add none. `next`
    marks in each view of an image what is padding in the one behind it, and all patches of the last view as showing some, as Molmo's
    published weights were trained: its masks stand one view too early."""

    later: ClassVar[frozenset[str]] = TransformersViT.later | {"padding"}
    class_positions: ClassVar[int] = 1

    @property
    def reads_places(self) -> bool:
        return self.padding is not None

    @property
    def prefix_kept(self) -> int:
        return 1 if self.class_token == "keep" else 0

    def load_pretrained(self, tower: Any) -> None:
        """Marks of padding, of which no checkpoint of CLIP has any, stay as they are."""
        marks, tower.marks = tower.marks, None
        super().load_pretrained(tower)
        tower.marks = marks

    @staticmethod
    def model_class() -> Any:
        from transformers import CLIPVisionModel

        return CLIPVisionModel
