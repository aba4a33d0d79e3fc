"""Vision transformers of timm (Wightman 2019) by name, at any size through timm's own `dynamic_img_size`.

timm resamples its table of positions bicubic with antialias, in float32, and computes rotary positions for the grid at
hand: EVA-02 (arXiv:2303.11331) and its CLIP descendants come from here. `dim_out` and `patch_size` need no timm: the spec
states the numbers, and a statement that timm contradicts is an error at build.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn

from vlmkit.encoders import encoders
from vlmkit.encoders.base import CLIP_MEAN, CLIP_STD, ViT
from vlmkit.encoders.by_size import BySizeTower
from vlmkit.encoders.loading import fill
from vlmkit.features import Grid
from vlmkit.registry import suggestion
from vlmkit.spec import SpecError


@encoders.register("timm")
@dataclass(frozen=True, kw_only=True)
class Timm(ViT):
    """The defaults are timm's copy of ViT-H-14-378-quickgelu, the same tower as the encoder open_clip's."""

    model: str = "vit_huge_patch14_clip_quickgelu_378"
    """A timm model whose class is VisionTransformer or Eva."""
    custom: bool = False
    """False: the numbers state what `model` is. True: they replace its own (a tiny version), and no weights fit."""
    width: int = 1280
    layers: int = 32
    heads: int = 16
    patch: int = 14
    image_size: int = 378
    prefix: int = 1
    """Class and register tokens before the patches."""
    final_norm: bool = True
    class_token: Literal["drop", "keep"] = "drop"
    """What happens to all `prefix` tokens."""
    positions: Literal["bicubic_antialias", "fixed"] = "bicubic_antialias"
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    checkpoint: str | None = None
    """'<model>.<tag>' as timm lists them, or a local file."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.class_token == "keep" and not self.prefix:
            raise SpecError("timm.class_token: 'keep', but the model has no prefix tokens")
        if 0 in self.depths:
            raise SpecError(f"timm.layer: timm's models give what their blocks make, but {self.layer} is what goes into the first")

    @classmethod
    def named(cls, name: str, **changes: Any) -> Self:
        """The spec of a timm model, numbers and all; with a tag ('vit_base_patch16_clip_224.openai') also its checkpoint.

        `final_norm` is True where the model has a norm for patch tokens; those that norm after pooling have none.
        """
        import timm

        model, _, tag = name.partition(".")
        with torch.device("meta"):
            vit = _create(model)
        sides = {"patch": vit.patch_embed.patch_size, "image_size": vit.patch_embed.img_size}
        for field, (height, width) in sides.items():
            if height != width:
                raise SpecError(f"timm.{field}: {model} is not square: {height}x{width}")
        found: dict[str, Any] = _numbers(vit) | {"model": model, "final_norm": not isinstance(vit.norm, nn.Identity)}
        if tag:
            known = [listed.partition(".")[2] for listed in timm.list_pretrained(f"{model}.*")]
            if tag not in known:
                raise SpecError(f"timm has no checkpoint {tag!r} of {model!r};{suggestion(tag, known)} known: {', '.join(known) or 'none'}")
            found["checkpoint"] = name
        config = timm.get_pretrained_cfg(name)
        if config is not None:
            found |= {"mean": tuple(config.mean), "std": tuple(config.std)}
        return cls(**(found | changes))

    @property
    def prefix_kept(self) -> int:
        return self.prefix if self.class_token == "keep" else 0

    def build(self) -> TimmTower:
        return TimmTower(self)

    def make(self) -> Any:
        """timm's model without head, pooling and what the selected layers do not need. Raises SpecError where its numbers
        are not the spec's."""
        vit = self.whole(self.model)
        self.prune(vit)
        return vit

    def prune(self, vit: Any) -> None:
        """Drop what the selected layers do not need."""
        vit.prune_intermediate_layers([max(self.depths) - 1], prune_norm=not self.final_norm, prune_head=True)

    def whole(self, name: str, **pretrained: Any) -> Any:
        """timm's model with all its layers, without a classifier. Raises SpecError where its numbers are not the spec's."""
        numbers = {"embed_dim": self.width, "depth": self.layers, "num_heads": self.heads, "patch_size": self.patch}
        numbers["img_size"] = self.image_size
        vit = _create(name, **(numbers if self.custom else {}), **pretrained)
        actual = _numbers(vit)
        wrong = [
            f"{field} {said}, timm's {self.model} has {actual[field]}"
            for field in actual
            if (said := getattr(self, field)) != actual[field]
        ]
        if wrong:
            raise SpecError(f"the encoder 'timm' says {'; '.join(wrong)}. Timm.named({self.model!r}) fills the numbers in")
        if self.final_norm and isinstance(vit.norm, nn.Identity):
            raise SpecError(f"timm.final_norm: {self.model} norms after pooling and has no norm for patch tokens; use final_norm=False")
        return vit

    def load_pretrained(self, tower: nn.Module) -> None:
        """Fill the tower from `checkpoint` by timm's own loading, conversions included. A local file was run; the hub never
        was: no network. timm resamples a local file's table of positions where its grid is another one."""
        import timm

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
            try:
                timm.models.load_pretrained(vit, vit.pretrained_cfg, num_classes=0, filter_fn=convert, strict=False)
            except RuntimeError as error:
                raise SpecError(f"timm cannot load {self.checkpoint} into {self.model!r}: {error}") from error
            self.prune(vit)
        kept = {name.partition(".")[0] for name in vit.state_dict()}
        problems = [f"missing {name}" for name in missing if name in vit.state_dict()]
        problems += [f"unknown {name}" for name in unknown if name.partition(".")[0] in kept]
        if problems:
            raise SpecError(f"the weights of {self.checkpoint} do not fit the encoder 'timm': {'; '.join(problems)}")
        fill(tower.vit, vit.state_dict(), self.checkpoint)


def _create(name: str, **arguments: Any) -> Any:
    """timm's model, without classifier. Raises SpecError for a name that timm does not know or that is no plain ViT."""
    import timm
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise SpecError(f"unknown timm model {architecture!r};{suggestion(architecture, timm.list_models())}")
    module = timm.model_entrypoint(architecture).__module__
    if module.rpartition(".")[2] not in ("vision_transformer", "eva", "deit"):
        raise SpecError(f"timm model {architecture!r} is not a plain vision transformer ({module}); the encoder 'timm' runs those alone")
    try:
        vit = timm.create_model(name, num_classes=0, dynamic_img_size=True, **arguments)
    except (RuntimeError, TypeError) as error:
        raise SpecError(f"timm cannot make {name!r} with {arguments or 'its own numbers'}: {error}") from error
    if not isinstance(vit, VisionTransformer | Eva):
        raise SpecError(f"timm model {architecture!r} is a {type(vit).__name__}; the encoder 'timm' runs VisionTransformer and Eva")
    return vit


def _numbers(vit: Any) -> dict[str, int]:
    return {
        "width": vit.embed_dim,
        "layers": len(vit.blocks),
        "heads": next(module.num_heads for module in vit.blocks[0].modules() if hasattr(module, "num_heads")),
        "patch": vit.patch_embed.patch_size[0],
        "image_size": vit.patch_embed.img_size[0],
        "prefix": vit.num_prefix_tokens,
    }


class TimmTower(BySizeTower):
    """timm's model as it is: its forward pass is called, hooks read the layers below the last selected one.

    Some timm models derive buffers that are not in the state dict (frequencies of rotary positions). They are computed
    once more in the first forward pass, and so survive being built on the meta device and filled from a checkpoint.
    """

    def __init__(self, spec: Timm) -> None:
        super().__init__(spec)
        self.vit = spec.make()
        self.derived = False
        for module in self.vit.modules():
            if module._non_persistent_buffers_set and not hasattr(module, "init_non_persistent_buffers"):
                raise SpecError(f"this timm cannot restore buffers of {type(module).__name__} in {spec.model!r}; upgrade timm")

    def derive(self) -> None:
        """Fill the buffers that are not in the state dict."""
        for module in self.vit.modules():
            if module._non_persistent_buffers_set:
                module.init_non_persistent_buffers()
        self.derived = True

    def encode_size(self, images: Tensor, grid: Grid) -> Tensor:
        if not self.derived and not images.is_meta:
            self.derive()
        recompute = self.gradient_checkpointing and self.training and torch.is_grad_enabled()
        if self.vit.grad_checkpointing != recompute:
            self.vit.set_grad_checkpointing(recompute)
        last = max(self.spec.depths)
        states: dict[int, Tensor] = {}
        hooks = [self.vit.blocks[depth - 1].register_forward_hook(keep(states, depth)) for depth in self.spec.depths if depth != last]
        try:
            final = self.vit(images)
        finally:
            for hook in hooks:
                hook.remove()
        normed = {depth: self.vit.norm(state) for depth, state in states.items()} | {last: final}
        chosen = [normed[depth][:, self.spec.prefix - self.spec.prefix_kept :] for depth in self.spec.depths]
        return chosen[0] if len(chosen) == 1 else torch.cat(chosen, dim=-1)


def keep(states: dict[int, Tensor], depth: int) -> Any:
    """A forward hook that stores a block's output under its depth."""

    def hook(module: nn.Module, args: Any, output: Tensor) -> None:
        states[depth] = output

    return hook
