"""What timm says of a model: its numbers, found on the meta device, where a forward pass costs no arithmetic and no memory.

A backbone of timm is any model with `forward_intermediates` (Wightman 2019, github.com/huggingface/pytorch-image-models): plain vision
transformers give every block's tokens, pyramids (ConvNeXt, Swin, Hiera, ResNet) a map a stage. Side of a patch is the stride of the level
that is chosen: 32 for the last stage of ConvNeXt, 16 for the one before.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from typing import Any, Literal

import torch
from torch import Tensor, nn

from vlmkit.registry import suggestion
from vlmkit.spec import SpecError

PLAIN = ("vision_transformer", "eva", "deit")
"""Modules of timm whose models are plain vision transformers: their own forward pass gives the last block's tokens."""


@dataclass(frozen=True)
class Facts:
    """What the fields of the encoder `timm` of the same names are, for one model and choice of levels."""

    width: int
    layers: int
    heads: int
    patch: int
    image_size: int
    prefix: int
    final_norm: bool
    positions: Literal["bicubic_antialias", "fixed"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    levels: bool


NAMES = tuple(field.name for field in fields(Facts))


def is_plain(name: str) -> bool:
    """Whether a timm model (without a tag) is a plain vision transformer. Raises SpecError for a name that timm does not know."""
    import timm

    if not timm.is_model(name):
        raise SpecError(f"unknown timm model {name!r};{suggestion(name, timm.list_models())} timm.list_models() has all names")
    return timm.model_entrypoint(name).__module__.rpartition(".")[2] in PLAIN


def known_tag(name: str) -> None:
    """Raise SpecError for '<model>.<tag>' of which timm has no checkpoint."""
    import timm

    model, _, tag = name.partition(".")
    is_plain(model)
    known = [listed.partition(".")[2] for listed in timm.list_pretrained(f"{model}.*")]
    if tag not in known:
        raise SpecError(f"timm has no checkpoint {tag!r} of {model!r};{suggestion(tag, known)} known: {', '.join(known) or 'none'}")


def create(name: str, **arguments: Any) -> Any:
    """timm's model without a classifier, for images of any size where it can be made so. `name` may have a tag. Raises SpecError for a name
    that timm does not know, or a model that cannot be made or gives no intermediate features."""
    import timm

    architecture = name.partition(".")[0]
    plain = is_plain(architecture)
    # timm's models take what their class takes; these are the two words that they have for it.
    any_size: list[dict[str, Any]] = [{"dynamic_img_size": True}, {"strict_img_size": False}, {}]
    for options in any_size[:1] if plain else any_size:
        try:
            model: Any = timm.create_model(name, num_classes=0, **options, **arguments)
            break
        except TypeError as error:
            problem: Exception = error
        except (RuntimeError, AssertionError, ValueError) as error:
            raise SpecError(f"timm cannot make {name!r} with {arguments or 'its own numbers'}: {error}") from error
    else:
        raise SpecError(f"timm cannot make {name!r} with {arguments or 'its own numbers'}: {problem}")
    if not hasattr(model, "forward_intermediates"):
        raise SpecError(f"timm model {architecture!r} has no forward_intermediates, of which the encoder 'timm' takes its features")
    return model


def depths_of(layer: int | tuple[int, ...], layers: int) -> tuple[int, ...]:
    """Levels counted from 1 of a choice as `layer` states it. Raises SpecError where a model has no such level."""
    chosen = layer if isinstance(layer, tuple) else (layer,)
    if not chosen:
        raise SpecError("timm.layer: at least one layer is needed")
    for one in chosen:
        if not 1 <= (one if one > 0 else layers + 1 + one) <= layers:
            raise SpecError(f"timm.layer: expected 1 to {layers}, or -{layers} to -1, got {one}")
    return tuple(one if one > 0 else layers + 1 + one for one in chosen)


@functools.lru_cache(maxsize=64)
def facts(name: str, layer: int | tuple[int, ...] = -1, image_size: int | None = None) -> Facts:
    """What timm has under a name, with a tag or without. image_size: for models whose size is chosen when they are made.

    Raises SpecError with the reason for a model that cannot be served.
    """
    with torch.device("meta"):
        made = create_sized(name, image_size)
        if is_plain(name.partition(".")[0]):
            return _of_plain(name, made)
        return _of_levels(name, made.eval(), layer, image_size)


def create_sized(name: str, image_size: int | None, **arguments: Any) -> Any:
    """timm's model, made for images of another size than its own where that is asked for and can be."""
    if image_size is None:
        return create(name, **arguments)
    own, takes = _own_size(name.partition(".")[0])
    return create(name, **({"img_size": image_size} if own != (image_size, image_size) and takes else {}), **arguments)


@functools.lru_cache(maxsize=64)
def _own_size(architecture: str) -> tuple[Any, bool]:
    """For which images timm makes a model, and whether it can be told others."""

    def look() -> tuple[Any, bool]:
        with torch.device("meta"):
            made = create(architecture)
        return native_size(made), "img_size" in inspect.signature(type(made).__init__).parameters

    # Where a skeleton is being made, its own thread gives buffers values.
    with ThreadPoolExecutor(1) as other:
        return other.submit(look).result()


def differences(stated: Any, actual: Mapping[str, Any]) -> list[str]:
    """'width 768, timm's vit_small_patch16_224 has 384' for each field that a spec states otherwise."""
    return [f"{name} {said}, timm's {stated.model} has {own}" for name, own in actual.items() if (said := getattr(stated, name)) != own]


def _of_plain(name: str, vit: Any) -> Facts:
    from timm.models.eva import Eva
    from timm.models.vision_transformer import VisionTransformer

    model = name.partition(".")[0]
    if not isinstance(vit, VisionTransformer | Eva):
        raise SpecError(f"timm model {model!r} is a {type(vit).__name__}; of its file the encoder 'timm' runs VisionTransformer and Eva")
    for field, (height, width) in {"patch": vit.patch_embed.patch_size, "image_size": vit.patch_embed.img_size}.items():
        if height != width:
            raise SpecError(f"timm.{field}: {model} is not square: {height}x{width}")
    mean, std = _normalisation(name)
    normed = not isinstance(vit.norm, nn.Identity)
    return Facts(**numbers(vit), final_norm=normed, positions="bicubic_antialias", mean=mean, std=std, levels=False)


def numbers(vit: Any) -> dict[str, int]:
    """The whole numbers of a plain vision transformer."""
    return {
        "width": vit.embed_dim,
        "layers": len(vit.blocks),
        "heads": next(module.num_heads for module in vit.blocks[0].modules() if hasattr(module, "num_heads")),
        "patch": vit.patch_embed.patch_size[0],
        "image_size": vit.patch_embed.img_size[0],
        "prefix": vit.num_prefix_tokens,
    }


def _normalisation(name: str) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    import timm

    config = timm.get_pretrained_cfg(name)
    mean, std = (tuple(map(float, getattr(config, field))) for field in ("mean", "std"))
    if len(mean) != 3 or len(std) != 3:
        raise SpecError(f"timm.mean: {name} sees {len(mean)} colours, the encoder 'timm' gives it 3")
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


def native_size(model: Any) -> tuple[int, int]:
    """Height and width of the images that a model was made for."""
    size = getattr(model, "_traits", {}).get("img_size") or model.pretrained_cfg["input_size"][-2:]
    return int(size[0]), int(size[1])


def _of_levels(name: str, model: Any, layer: int | tuple[int, ...], image_size: int | None) -> Facts:
    own = name.partition(".")[0]
    height, side = native_size(model)
    if height != side:
        raise SpecError(f"timm.image_size: {own} is not square: {height}x{side}")
    shapes = _shapes(own, model, side)
    layers = len(shapes)
    depths = depths_of(layer, layers)
    strides = {depth: _stride(model, depth, layers, side, shapes[depth - 1]) for depth in depths}
    widths = {depth: shapes[depth - 1][0] for depth in depths}
    if len(set(strides.values())) > 1 or len(set(widths.values())) > 1:
        said = ", ".join(f"{depth} ({strides[depth]} pixels, {widths[depth]} channels)" for depth in sorted(strides))
        raise SpecError(f"timm.layer: levels of one stride and width can be joined, but {own} has {said}")
    patch, last = strides[depths[0]], max(depths)

    def serves(rows: int, columns: int) -> bool:
        """Whether a view of so many patches gives as many features."""
        try:
            found = features(model, torch.zeros(1, 3, rows * patch, columns * patch, device="meta"), [last - 1])
        except (RuntimeError, AssertionError, ValueError, TypeError, IndexError):
            return False
        return all(_grid(each) in ((rows, columns), rows * columns) for each in found)

    if serves(5, 3) and serves(14, 28) and serves(1, 1):
        positions: Literal["bicubic_antialias", "fixed"] = "bicubic_antialias"
    elif side % patch == 0 and serves(side // patch, side // patch):
        positions = "fixed"
    else:
        raise SpecError(
            f"timm model {own!r} gives {_grid_of_shape(shapes[last - 1])} features for {side}x{side} pixels; the "
            f"encoder 'timm' needs a feature for each square patch (here of {patch} pixels), at some size. Choose another layer or model"
        )
    mean, std = _normalisation(name)
    return Facts(
        width=widths[depths[0]],
        layers=layers,
        heads=0,
        patch=patch,
        image_size=side if image_size is None else image_size,
        prefix=_prefix(model, side, last),
        final_norm=_has_norm(model, side, last),
        positions=positions,
        mean=mean,
        std=std,
        levels=True,
    )


def output_of(model: Any) -> Literal["NCHW", "NLC"]:
    """How a model is asked for features. Gemma 4's finds the rows and columns of a map by reading positions off the device."""
    return "NLC" if type(model).__name__.startswith("Gemma4") else "NCHW"


def arguments(model: Any, indices: list[int], norm: bool = False, prefix: bool = False) -> dict[str, Any]:
    """Those under which a model's `forward_intermediates` gives the levels of these numbers, counted from 0, in their order."""
    takes = inspect.signature(model.forward_intermediates).parameters
    given = {"indices": sorted(set(indices)), "norm": norm, "output_fmt": output_of(model), "intermediates_only": True, "stop_early": True}
    return {word: value for word, value in given.items() if word in takes} | ({"return_prefix_tokens": True} if prefix else {})


def features(model: Any, images: Tensor, indices: list[int], norm: bool = False, prefix: bool = False) -> Any:
    """Levels of images (V, 3, H, W) by a model's own `forward_intermediates`, without gradients."""
    with torch.no_grad():
        return model.forward_intermediates(images, **arguments(model, indices, norm, prefix))


def _shapes(own: str, model: Any, side: int) -> list[tuple[int, ...]]:
    """(channels, rows, columns) of every level, or (channels, tokens)."""
    blank = torch.zeros(1, 3, side, side, device="meta")
    try:
        with torch.no_grad():
            maps = model.forward_intermediates(blank, intermediates_only=True, output_fmt=output_of(model))
    except (RuntimeError, AssertionError, NotImplementedError, ValueError) as error:
        raise SpecError(f"timm model {own!r} cannot be run without weights, to see which features it gives: {error}") from error
    return [tuple(each.shape[1:]) if each.ndim == 4 else (each.shape[2], each.shape[1]) for each in maps]


def _stride(model: Any, depth: int, layers: int, side: int, shape: tuple[int, ...]) -> int:
    info = list(getattr(model, "feature_info", ()))
    if len(info) == layers:
        return int(info[depth - 1]["reduction"])
    return max(1, round(side / shape[1]))


def _grid(level: Any) -> tuple[int, int] | int:
    level = level[0] if isinstance(level, tuple) else level
    return (level.shape[2], level.shape[3]) if level.ndim == 4 else int(level.shape[1])


def _grid_of_shape(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape[1:]))


def _prefix(model: Any, side: int, last: int) -> int:
    """Tokens that stand before the patches of a level and can be had."""
    if (
        not getattr(model, "num_prefix_tokens", 0)
        or "return_prefix_tokens" not in inspect.signature(model.forward_intermediates).parameters
    ):
        return 0
    found = features(model, torch.zeros(1, 3, side, side, device="meta"), [last - 1], prefix=True)[-1]
    return int(found[1].shape[1]) if isinstance(found, tuple) else 0


def _has_norm(model: Any, side: int, last: int) -> bool:
    """Whether `norm=True` runs a module with weights that is not run without it."""
    called: list[set[str]] = []
    for norm in (False, True):
        seen: set[str] = set()
        hooks = [
            module.register_forward_hook(lambda module, args, output, name=name, seen=seen: seen.add(name))
            for name, module in model.named_modules()
            if module._parameters
        ]
        try:
            features(model, torch.zeros(1, 3, side, side, device="meta"), [last - 1], norm=norm)
        except AssertionError:
            return False
        finally:
            for hook in hooks:
                hook.remove()
        called.append(seen)
    return called[1] > called[0]
