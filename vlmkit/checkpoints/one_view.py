"""Published image processors that make one view of an image: those of CLIP and SigLIP, of LLaVA and of Pixtral."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from vlmkit.checkpoints.image_processors import (
    edges_of,
    field,
    mean_colour,
    named,
    refuse_others,
    refuse_unfit,
    resample_number,
    resample_of,
    sides_of,
    square_of,
    stated_normalisation,
)
from vlmkit.encoders.base import Encoder
from vlmkit.preprocess.policies.base import ImagePolicy
from vlmkit.preprocess.policies.center_crop import CenterCrop
from vlmkit.preprocess.policies.edge_cap import EdgeCap
from vlmkit.preprocess.policies.pad_square import MEAN_COLOUR, PadSquare
from vlmkit.preprocess.policies.resize_crop import ResizeCrop
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import SpecError


def image_policy(processor: Any, encoder: Encoder, *, patch: int | None = None, unused: Iterable[str] = ()) -> ImagePolicy:
    """The policy of a published image processor before an encoder.

    patch: what Pixtral's composite processor tells it, whatever it states itself. unused: further fields without effect. Raises
    SpecError naming a field that no policy honours, or that the encoder does not take.
    """
    made = type(processor)._preprocess.__qualname__.partition(".")[0].removesuffix("Pil")
    if made == "LlavaImageProcessor" and processor.do_pad:
        policy: ImagePolicy = _padded(processor, encoder)
    elif made == "PixtralImageProcessor":
        policy = _capped(processor, patch)
    elif made == "LlavaImageProcessor" or (made == type(processor).resize.__qualname__.partition(".")[0] and made.endswith("Backend")):
        policy = _resized_and_cut(processor, encoder, unused)
    else:
        raise SpecError(f"image processor {type(processor).__name__} is none that vlmkit reads")
    stated = ("do_resize", "size", "image_size", "do_center_crop", "crop_size", "patch_size")
    refuse_unfit(policy, encoder, processor, *(name for name in stated if getattr(processor, name, None) is not None))
    return policy


def _resized_and_cut(processor: Any, encoder: Encoder, unused: Iterable[str]) -> ImagePolicy:
    """One resize and one cut, either of which may be left out."""
    refuse_others(processor, ("do_resize", "size", "do_center_crop", "crop_size", "do_pad", "pad_size"), unused)
    if processor.do_pad and processor.pad_size is not None:
        raise SpecError(f"{field(processor, 'do_pad', 'pad_size')}: pixels that are put around after normalisation are no colour of 8 bits")
    resize: tuple[int, int] | int | None = None
    stated = sides_of(processor)
    if processor.do_resize:
        if stated.keys() == {"height", "width"}:
            resize = (stated["height"], stated["width"])
        else:
            (resize,) = edges_of(processor, "shortest_edge")
    crop: tuple[int, int] | None = None
    if processor.do_center_crop:
        with named(processor, "do_center_crop"):
            height, width = edges_of(processor, "height", "width", name="crop_size")
        crop = height, width
    common: dict[str, Any] = {"resample": resample_of(processor)}
    patch = encoder.patch_size
    if crop is not None and crop == (resize, resize):
        return CenterCrop(size=crop[0], view=_view(crop[0], patch), **common)
    if isinstance(resize, tuple) and resize[0] == resize[1] and crop in (None, resize):
        return Squash(size=resize[0], view=_view(resize[0], patch), **common)
    with named(processor, "do_resize", "size", "do_center_crop", "crop_size"):
        return ResizeCrop(factor=patch, resize=resize, crop=crop, **common)


def _padded(processor: Any, encoder: Encoder) -> PadSquare:
    """LLaVA's: to a square of its mean colour, then to its size."""
    refuse_others(processor, ("do_pad", "size", "do_center_crop", "crop_size"), ("pad_size",))
    side = square_of(processor) if "height" in sides_of(processor) else edges_of(processor, "shortest_edge")[0]
    if processor.do_center_crop and square_of(processor, "crop_size") != side:
        raise SpecError(f"{field(processor, 'size', 'crop_size')}: vlmkit reads LLaVA's padded squares with one size alone")
    fill = mean_colour(processor)
    return PadSquare(
        size=side, view=_view(side, encoder.patch_size), fill="mean" if fill == MEAN_COLOUR else fill, resample=resample_of(processor)
    )


def _capped(processor: Any, patch: int | None) -> EdgeCap:
    """Pixtral's. It fills images of a batch up to the largest (do_pad), which nobody sees."""
    refuse_others(processor, ("size", "patch_size"), ("do_pad", "pad_size", "crop_size"))
    longest = square_of(processor) if "height" in sides_of(processor) else edges_of(processor, "longest_edge")[0]
    if patch is None:
        patch = processor.patch_size if isinstance(processor.patch_size, int) else square_of(processor, "patch_size")
    with named(processor, "size", "patch_size"):
        return EdgeCap(longest=longest, factor=patch, resample=resample_of(processor))


def _view(side: int, patch: int) -> int | None:
    """What a convolution over patches sees of a square that they do not fill."""
    return side // patch * patch or None if side % patch else None


def image_processor(policy: ImagePolicy, encoder: Encoder) -> Any:
    """The transformers image processor of a policy that makes one view. Raises SpecError for any other."""
    from transformers import CLIPImageProcessor, LlavaImageProcessor, PixtralImageProcessor, SiglipImageProcessor

    fill = None if not isinstance(policy, PadSquare) else MEAN_COLOUR if policy.fill == "mean" else policy.fill
    common = {"resample": resample_number(policy), **stated_normalisation(encoder, fill)}
    if isinstance(policy, EdgeCap):
        patch = {"height": policy.factor, "width": policy.factor}
        return PixtralImageProcessor(size={"longest_edge": policy.longest}, patch_size=patch, **common)
    if isinstance(policy, PadSquare) and policy.view in (None, _view(policy.size, encoder.patch_size)):
        square = {"height": policy.size, "width": policy.size}
        return LlavaImageProcessor(size={"shortest_edge": policy.size}, crop_size=square, do_pad=True, **common)
    fields = resize_fields(policy, encoder.patch_size)
    if fields is None:
        raise SpecError(f"policy {policy.kind!r} has no transformers image processor that makes one view such as {policy}")
    return (SiglipImageProcessor if isinstance(policy, Squash) else CLIPImageProcessor)(**fields, **common)


def resize_fields(policy: ImagePolicy, patch: int) -> dict[str, Any] | None:
    """Fields of a processor that resizes once and cuts once, before a tower that sees all whole patches; None for another policy."""
    if isinstance(policy, Squash) and policy.view in (None, _view(policy.size, patch)):
        return {"size": {"height": policy.size, "width": policy.size}}
    if isinstance(policy, CenterCrop) and policy.view in (None, _view(policy.size, patch)):
        square = {"height": policy.size, "width": policy.size}
        return {"size": {"shortest_edge": policy.size}, "crop_size": square, "do_center_crop": True}
    if not isinstance(policy, ResizeCrop) or policy.factor != patch:
        return None
    resize, crop = policy.resize, policy.crop
    size = {"height": resize[0], "width": resize[1]} if isinstance(resize, tuple) else {"shortest_edge": resize or patch}
    cut = {} if crop is None else {"crop_size": {"height": crop[0], "width": crop[1]}}
    return {"do_resize": resize is not None, "size": size, "do_center_crop": crop is not None, **cut}
