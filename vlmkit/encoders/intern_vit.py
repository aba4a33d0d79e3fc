"""InternViT, the vision transformer of InternVL (Chen et al. 2023, arXiv:2312.14238, and 2024, arXiv:2404.16821), as transformers'
InternVLVisionModel computes it: a class token, a learned table of positions, scales on both branches of a block, no norm behind the last.

    InternViT-6B-448px-V1-5    RMSNorm before branches and over all heads of queries and keys, no bias there    5,536,496,000 parameters
    InternViT-300M-448px       LayerNorm, biases, no norm of queries and keys                                     304,012,288

`load_pretrained` reads directories of transformers' class and those of OpenGVLab's own, whose names `intern_vit_names.py` has.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from vlmkit.activations import TransformersActivation
from vlmkit.encoders import encoders
from vlmkit.encoders.base import IMAGENET_MEAN, IMAGENET_STD, Positions
from vlmkit.encoders.hf import TransformersViT, refuse_colours
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from torch import nn


@encoders.register("intern_vit")
@dataclass(frozen=True, kw_only=True)
class InternViT(TransformersViT):
    """The defaults are the numbers of OpenGVLab/InternViT-6B-448px-V1-5."""

    width: int = 3200
    layers: int = 45
    heads: int = 25
    mlp: int = 12800
    patch: int = 14
    image_size: int = 448
    activation: TransformersActivation = "gelu"
    norm: Literal["rms_norm", "layer_norm"] = "rms_norm"
    """Before both branches of a block."""
    norm_eps: float = 1e-6
    qk_norm: bool = True
    """RMSNorm over all heads of queries, and of keys."""
    qkv_bias: bool = False
    scale: float = 0.1
    """What the factors on both branches of a block begin with."""
    final_norm: bool = False
    """A LayerNorm behind the last block, which InternVL's towers have not."""
    class_token: Literal["drop", "keep"] = "drop"
    positions: Positions = "fixed"
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD

    names: ClassVar[dict[str, str]] = TransformersViT.names | {
        "norm": "norm_type",
        "qk_norm": "use_qk_norm",
        "qkv_bias": "attention_bias",
        "scale": "layer_scale_init_value",
    }
    blocks_at: ClassVar[str] = "encoder.layer"
    norm_at: ClassVar[str] = "layernorm"
    class_positions: ClassVar[int] = 1
    headless: ClassVar[dict[str, Any]] = {}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.scale <= 0:
            raise SpecError(f"intern_vit.scale: expected more than 0, got {self.scale}")

    @property
    def prefix_kept(self) -> int:
        return 1 if self.class_token == "keep" else 0

    @property
    def whole(self) -> bool:
        return self.blocks == self.layers

    def numbers(self) -> dict[str, Any]:
        """transformers states sides as pairs, and by pooling whether there is a norm."""
        pairs = {"patch_size": [self.patch] * 2, "image_size": [self.image_size] * 2}
        return super().numbers() | pairs | {"use_mean_pooling": not self.final_norm}

    @classmethod
    def from_config(cls, config: Any, **fields: Any) -> Self:
        """Raises SpecError for views and patches that are no squares, and for a tower without a table of positions."""
        refuse_colours(cls.kind, config)
        sides = {}
        for ours, theirs in (("patch", "patch_size"), ("image_size", "image_size")):
            high, wide = getattr(config, theirs)
            if high != wide:
                raise SpecError(f"{theirs}: encoder 'intern_vit' sees squares, but the config says {high} x {wide}")
            sides[ours] = high
        for name, wanted in (("use_absolute_position_embeddings", True), ("use_mask_token", False)):
            if getattr(config, name) != wanted:
                raise SpecError(f"{name}: encoder 'intern_vit' has it {wanted}, but the config says {getattr(config, name)}")
        return super().from_config(config, **(sides | {"final_norm": not config.use_mean_pooling} | fields))

    @staticmethod
    def model_class() -> Any:
        from transformers import InternVLVisionModel

        return InternVLVisionModel

    def load_pretrained(self, tower: nn.Module) -> None:
        from vlmkit.encoders.intern_vit_names import is_opengvlab, read_opengvlab
        from vlmkit.encoders.loading import fill

        if self.checkpoint is None or not is_opengvlab(self.checkpoint):
            super().load_pretrained(tower)
            return
        weights = read_opengvlab(self.checkpoint, self._opengvlab_numbers())
        fill(tower, {name: value for name, value in weights.items() if self.needs(name)}, self.checkpoint)

    def _opengvlab_numbers(self) -> dict[str, Any]:
        return {
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.mlp,
            "patch_size": self.patch,
            "image_size": self.image_size,
            "hidden_act": self.activation,
            "norm_type": self.norm,
            "layer_norm_eps": self.norm_eps,
            "qk_normalization": self.qk_norm,
            "qkv_bias": self.qkv_bias,
        }
