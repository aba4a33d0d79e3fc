"""Backbones of timm (Wightman 2019) by name: every model that has `forward_intermediates`, at any size where timm serves any.

`timm:model=convnext_tiny`, `timm:model=vit_base_patch16_siglip_224`, `timm:model=convnext_base.fb_in22k` (a tag names the checkpoint too).
Numbers that are not stated are asked of timm once, on the meta device, and are part of the spec from then on: JSON is read without timm. Of
plain vision transformers timm resamples the table of positions bicubic with antialias, in float32, and computes rotary positions for the
grid at hand. A number that timm contradicts is an error.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

from vlmkit.encoders import encoders
from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD, ViT
from vlmkit.hub import refuse_unreachable
from vlmkit.spec import Spec, SpecError

if TYPE_CHECKING:
    from torch import nn

    from vlmkit.encoders.timm_towers import TimmTower

FLAGSHIP = "vit_huge_patch14_clip_quickgelu_378"
COUNTED = ("width", "layers", "heads", "patch", "image_size", "prefix", "levels")
NUMBERS = frozenset({"width", "layers", "heads", "patch", "image_size", "prefix", "final_norm", "mean", "std"})
"""Fields that are asked of timm where they are not stated."""


@encoders.register("timm")
@dataclass(frozen=True, kw_only=True)
class Timm(ViT):
    """The defaults are timm's copy of ViT-H-14-378-quickgelu, the same tower as the encoder open_clip's. Of any other model they are what
    timm has."""

    model: str = FLAGSHIP
    """A timm model; with a tag ('vit_base_patch16_clip_224.openai') the tag becomes the checkpoint."""
    custom: bool = False
    """False: the numbers state what `model` is. True: they replace its own (a tiny version of a plain vision transformer), those that are
    not stated are the flagship's, and no weights fit."""
    width: int = 1280
    """Channels of the features."""
    layers: int = 32
    """Blocks, or levels of a pyramid (4 of ConvNeXt)."""
    heads: int = 16
    """0 where `levels`."""
    patch: int = 14
    """Side of a patch in pixels: the stride of the chosen level."""
    image_size: int = 378
    """Side of the images that the model was made for. One that takes a single size can be made for another one: state it."""
    prefix: int = 1
    """Class and register tokens before the patches."""
    final_norm: bool = True
    """Unstated: where the model has a norm for the patches of the chosen level. Those that norm after pooling have none."""
    class_token: Literal["drop", "keep"] = "drop"
    """What happens to all `prefix` tokens."""
    positions: Literal["bicubic_antialias", "fixed"] = "bicubic_antialias"
    """'fixed': one size alone. Unstated: what the model can."""
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    checkpoint: str | None = None
    """'<model>.<tag>' as timm lists them, or a local file."""
    levels: bool = False
    """True where timm's `forward_intermediates` gives the features: everything but plain vision transformers."""
    keep_unused: bool = False
    """Keep the weights of a plain vision transformer that no feature depends on, for the sake of a checkpoint: blocks above the selected
    layer, norms that are not applied, the pooling head. They are never computed, but counted, loaded and saved."""

    later: ClassVar[frozenset[str]] = frozenset({"levels", "keep_unused"})

    def __new__(cls, **fields: Any) -> Self:
        made = super().__new__(cls, **fields)
        if fields:
            made.__dict__["_stated"] = frozenset(fields)
        return made

    def __post_init__(self) -> None:
        stated: frozenset[str] = self.__dict__.pop("_stated", frozenset())
        Spec.__post_init__(self)
        if 0 in (self.layer if isinstance(self.layer, tuple) else (self.layer,)):
            raise SpecError(f"timm.layer: timm's models give what their blocks make, but {self.layer} is what goes into the first")
        if "." in self.model and not self.custom:
            self._take_tag()
        if self.model != FLAGSHIP and not self.custom:
            self._ask(stated)
        super().__post_init__()
        if self.keep_unused and self.levels:
            raise SpecError(f"timm.keep_unused: of plain vision transformers alone, but {self.model} is none; leave it out")
        if self.class_token == "keep" and not self.prefix:
            raise SpecError("timm.class_token: 'keep', but the model has no prefix tokens")
        if 0 in self.depths:
            raise SpecError(f"timm.layer: timm's models give what their blocks make, but {self.layer} is what goes into the first")

    def _take_tag(self) -> None:
        from vlmkit.encoders.timm_models import known_tag

        known_tag(self.model)
        object.__setattr__(self, "checkpoint", self.checkpoint or self.model)
        object.__setattr__(self, "model", self.model.partition(".")[0])

    def _ask(self, stated: frozenset[str]) -> None:
        """Fill in what is not stated. timm is not imported where all is; `build` holds it against timm then."""
        unstated = NUMBERS - stated
        if not unstated:
            return
        from vlmkit.encoders.timm_models import NAMES, facts

        tagged = self.checkpoint if self.checkpoint and self.checkpoint.partition(".")[0] == self.model else self.model
        found = facts(tagged, self.layer, self.image_size if "image_size" in stated else None)
        for name in NAMES:
            if name not in stated:
                object.__setattr__(self, name, getattr(found, name))
        self._hold_against(found, stated)

    def _hold_against(self, found: Any, names: frozenset[str]) -> None:
        """Raise SpecError where timm's numbers are not those of the spec."""
        from vlmkit.encoders.timm_models import differences

        if wrong := differences(self, {name: getattr(found, name) for name in COUNTED if name in names}):
            raise SpecError(f"the encoder 'timm' says {'; '.join(wrong)}. Leave numbers out, and timm fills them in")
        if self.final_norm and not found.final_norm:
            raise SpecError(f"timm.final_norm: {self.model} has no norm for the patches of layer {self.layer}; use final_norm=False")
        if self.positions != "fixed" == found.positions:
            raise SpecError(f"timm.positions: {self.model} takes images of one size alone; use positions='fixed'")

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed. Of another model, or another level of a pyramid, numbers that are not given are asked anew."""
        other = changes.get("model", self.model) != self.model
        if self.custom or changes.get("custom") or not (other or (self.levels and "layer" in changes)):
            return super().replace(**changes)
        asked = NUMBERS | {"positions", "levels", "checkpoint"} if other else {"width", "patch", "prefix", "positions", "final_norm"}
        kept = {name: getattr(self, name) for name in (field.name for field in fields(self)) if name not in asked}
        return type(self)(**(kept | changes))

    @classmethod
    def named(cls, name: str, **changes: Any) -> Self:
        """The spec of a timm model by its name, numbers and all; with a tag ('vit_base_patch16_clip_224.openai') also its checkpoint."""
        return cls(model=name, **changes)

    @property
    def prefix_kept(self) -> int:
        return self.prefix if self.class_token == "keep" else 0

    def build(self) -> TimmTower:
        """Raises SpecError where the numbers are not timm's."""
        from vlmkit.encoders.timm_towers import tower_of

        return tower_of(self)

    def make(self) -> Any:
        """timm's model without head, pooling and what the selected layers do not need. Raises SpecError where its numbers
        are not the spec's."""
        vit = self.whole(self.model)
        self.prune(vit)
        return vit

    def prune(self, vit: Any) -> dict[str, nn.Module]:
        """Drop what the selected layers do not need. Returns it, of a plain vision transformer by its name there."""
        before: dict[str, nn.Module] = {}
        if not self.levels:
            outer = {name: module for name, module in vit.named_children() if name != "blocks"}
            before = outer | {f"blocks.{number}": block for number, block in enumerate(vit.blocks)}
        vit.prune_intermediate_layers([max(self.depths) - 1], prune_norm=not self.final_norm, prune_head=True)
        after = {id(module) for module in vit.modules()}
        return {name: module for name, module in before.items() if id(module) not in after and next(module.parameters(), None) is not None}

    def whole(self, name: str, **pretrained: Any) -> Any:
        """timm's model with all its layers, without a classifier. Raises SpecError where its numbers are not the spec's."""
        from torch import nn

        from vlmkit.encoders.timm_models import create, create_sized, differences, facts, is_plain, numbers

        if self.levels:
            self._hold_against(facts(self.model, self.layer, self.image_size), frozenset(COUNTED))
            return create_sized(name, self.image_size, **pretrained)
        if not is_plain(self.model):
            raise SpecError(f"timm.levels: {self.model} is no plain vision transformer; leave numbers out, and timm fills them in")
        own = {"embed_dim": self.width, "depth": self.layers, "num_heads": self.heads, "patch_size": self.patch}
        own["img_size"] = self.image_size
        vit = create(name, **own, **pretrained) if self.custom else create_sized(name, self.image_size, **pretrained)
        actual = numbers(vit)
        wrong = differences(self, actual)
        if wrong:
            raise SpecError(f"the encoder 'timm' says {'; '.join(wrong)}. Leave numbers out, and timm fills them in")
        if self.final_norm and isinstance(vit.norm, nn.Identity):
            raise SpecError(f"timm.final_norm: {self.model} norms after pooling and has no norm for patch tokens; use final_norm=False")
        return vit

    def load_pretrained(self, tower: nn.Module) -> None:
        """Fill the tower from `checkpoint` by timm's own loading, conversions included. A local file was run; the hub never
        was: no network. timm resamples a local file's table of positions where its grid is another one."""
        import timm
        import torch

        from vlmkit.encoders.loading import fill, refuse_whole_numbers
        from vlmkit.encoders.timm_towers import TimmTower, unread

        if self.checkpoint is None:
            raise SpecError(f"timm.checkpoint: no checkpoint is named; set it to a tag of {self.model} or a local file")
        assert isinstance(tower, TimmTower)
        local = Path(self.checkpoint).is_file()
        if not local and self.checkpoint.partition(".")[0] != self.model:
            raise SpecError(f"timm.checkpoint: {self.checkpoint!r} is neither a local file nor '{self.model}.<tag>'")
        overlay = {"pretrained_cfg_overlay": {"file": self.checkpoint, "custom_load": False, "source": ""}} if local else {}
        missing: list[str] = []
        unknown: list[str] = []

        def note(module: nn.Module, keys: Any) -> None:
            missing.extend(keys.missing_keys)
            unknown.extend(keys.unexpected_keys)

        with torch.device("cpu"):
            vit = self.whole(self.model if local else self.checkpoint, **overlay)
            # timm loads without a head loosely, and only logs what does not fit.
            vit.register_load_state_dict_post_hook(note)
            convert = getattr(sys.modules[type(vit).__module__], "checkpoint_filter_fn", None)

            def converted(weights: Any, *model: Any) -> Any:
                """As timm's own, whose values are not whole numbers where they stand for weights: copied, they would be taken for those."""
                found = weights if convert is None else convert(weights, *model)
                refuse_whole_numbers(vit.state_dict(), found, str(self.checkpoint))
                return found

            if not local and (hub := vit.pretrained_cfg.get("hf_hub_id")):
                refuse_unreachable(hub.partition("@")[0], ("model.safetensors", "pytorch_model.bin"))
            try:
                timm.models.load_pretrained(vit, vit.pretrained_cfg, num_classes=0, filter_fn=converted, strict=False)
            except RuntimeError as error:
                raise SpecError(f"timm cannot load {self.checkpoint} into {self.model!r}: {error}") from error
            every = set(vit.state_dict())
            dropped = self.prune(vit)
        kept = {name.partition(".")[0] for name in (every if self.keep_unused else vit.state_dict())} - {"head"}
        problems = [f"missing {name}" for name in missing if name in (every if self.keep_unused else vit.state_dict())]
        problems += [f"unknown {name}" for name in unknown if name.partition(".")[0] in kept]
        if problems:
            raise SpecError(f"the weights of {self.checkpoint} do not fit the encoder 'timm': {'; '.join(problems)}")
        fill(tower.vit, vit.state_dict(), self.checkpoint)
        if tower.unread is not None:
            fill(tower.unread, unread(dropped).state_dict(), self.checkpoint)
