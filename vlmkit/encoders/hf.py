"""What the vision transformers of transformers share: their numbers, their layers, their checkpoints.

transformers' own vision models take one grid at a time through their embeddings; here the layers are the library's and
the positions are vlmkit's, so that the filter of a table is a field. Buffers that are not in the state dict (`position_ids`,
rotary frequencies) would be lost on the way from the meta device and are never kept: `forward` counts positions anew.

The state dict has the names of transformers' vision model.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, TypeVar

from vlmkit.activations import TransformersActivation
from vlmkit.encoders.base import BlockEncoder, Encoder, ViT
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from torch import nn

S = TypeVar("S", bound=Encoder)


@dataclass(frozen=True, kw_only=True)
class TransformersEncoder(BlockEncoder):
    """The numbers of a transformers vision config. `checkpoint` is a name on the hub or a local directory."""

    heads: int
    mlp: int
    """Hidden channels of a block's MLP."""
    activation: TransformersActivation
    """Of a block's MLP, by transformers' name."""
    attention: Literal["sdpa", "eager", "flash_attention_2"] = "sdpa"
    """transformers' attention implementation; flash_attention_2 needs the flash-attn package and half precision."""
    keep_unused: bool = False
    """Keep the weights that published checkpoints hold and no one reads: blocks above the selected layer, a final norm that
    is not applied. They are never computed, but counted, loaded and saved."""
    kept_blocks: int | None = None
    """Keep so many blocks and no final norm, where a published checkpoint has some of those that no one reads. None: as `keep_unused`
    says."""

    later: ClassVar[frozenset[str]] = frozenset({"kept_blocks"})

    names: ClassVar[dict[str, str]] = {
        "width": "hidden_size",
        "layers": "num_hidden_layers",
        "heads": "num_attention_heads",
        "mlp": "intermediate_size",
        "patch": "patch_size",
        "activation": "hidden_act",
    }
    """Fields under transformers' names."""
    blocks_at: ClassVar[str]
    """Where transformers' model has its blocks."""
    inside: ClassVar[dict[str, str] | None] = None
    """Patterns of names that its weights have inside of a larger checkpoint, and what they are replaced by."""
    headless: ClassVar[dict[str, Any]] = {"vision_use_head": False}
    """What a config says so that no pooling head is made."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads < 1 or self.width % self.heads:
            raise SpecError(f"{self.kind}.heads: width {self.width} does not divide into {self.heads} heads")
        if self.kept_blocks is not None and (self.keep_unused or not max(self.depths) <= self.kept_blocks <= self.layers):
            raise SpecError(
                f"{self.kind}.kept_blocks: expected {max(self.depths)} (the last one selected) to {self.layers} (layers), and not beside "
                f"keep_unused, got {self.kept_blocks}"
            )

    @staticmethod
    @abstractmethod
    def model_class() -> Any:
        """transformers' vision model."""

    def numbers(self) -> dict[str, Any]:
        """The fields under transformers' names."""
        return {theirs: getattr(self, ours) for ours, theirs in self.names.items()}

    @classmethod
    def from_config(cls, config: Any, **fields: Any) -> Self:
        """The spec of a transformers vision config. Raises SpecError for pixels of other than three colours."""
        refuse_colours(cls.kind, config)
        own = {ours: getattr(config, theirs) for ours, theirs in cls.names.items()}
        return named_theirs(cls, cls.names | {"layer": "vision_feature_layer"}, **(own | {"attention": "sdpa"} | fields))

    @property
    def blocks(self) -> int:
        """Blocks whose weights the tower has."""
        return self.layers if self.keep_unused else self.kept_blocks or max(self.depths)

    @property
    def whole(self) -> bool:
        """Whether the tower has every weight of the published model but a pooling head's."""
        return self.blocks == self.layers

    def make(self) -> Any:
        """transformers' model with random weights and the blocks that the tower has."""
        from vlmkit.encoders.segments import by_segments

        cls = self.model_class()
        numbers = self.numbers() | self.headless | {"num_hidden_layers": self.blocks}
        model = cls(cls.config_class(**numbers, attn_implementation=self.attention))
        # Layers look their attention up by the config that they share.
        model.config._attn_implementation = by_segments(self.attention)
        return getattr(model, "vision_model", model)

    def load_pretrained(self, tower: nn.Module) -> None:
        from vlmkit.encoders.loading import fill_from_transformers

        cls, kind = self.model_class(), self.kind
        fill_from_transformers(tower, cls, self.checkpoint, self.numbers(), kind=kind, key_mapping=self.inside, needs=self.needs)

    def needs(self, name: str) -> bool:
        """False for weights of the published model that this tower leaves out."""
        number, _, _ = name.removeprefix(f"{self.blocks_at}.").partition(".")
        return not name.startswith(f"{self.blocks_at}.") or int(number) < self.blocks


def named_theirs(cls: type[S], names: dict[str, str], **fields: Any) -> S:
    """The spec with these fields. A field that cannot be goes by its name in transformers' config (`names`) as well."""
    try:
        return cls(**fields)
    except SpecError as error:
        ours = str(error).removeprefix(f"{cls.kind}.").partition(":")[0].partition("[")[0]
        raise SpecError(f"{names[ours]}: {error}" if ours in names else str(error)) from None


def refuse_colours(kind: str, config: Any) -> None:
    """Raise SpecError for a config whose pixels have other than three colours."""
    name = "in_channels" if hasattr(config, "in_channels") else "num_channels"
    if getattr(config, name) != 3:
        raise SpecError(f"{name}: encoder {kind!r} sees pixels of 3 colours, but the config says {getattr(config, name)}")


@dataclass(frozen=True, kw_only=True)
class TransformersViT(TransformersEncoder, ViT):
    """One with a learned table of positions and a norm after the last block."""

    norm_eps: float

    names: ClassVar[dict[str, str]] = TransformersEncoder.names | {"image_size": "image_size", "norm_eps": "layer_norm_eps"}
    blocks_at: ClassVar[str] = "encoder.layers"
    norm_at: ClassVar[str] = "post_layernorm"
    """Where it has the norm after the last block."""
    class_positions: ClassVar[int] = 0
    """Entries of the table of positions before those of the patches."""

    @property
    def whole(self) -> bool:
        return super().whole and (self.final_norm or self.keep_unused)

    def needs(self, name: str) -> bool:
        part, _, _ = name.partition(".")
        return super().needs(name) and part != "head" and (self.final_norm or self.keep_unused or part != self.norm_at)
