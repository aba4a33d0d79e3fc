"""Image processors, which several families' checkpoints describe in the same words: their policies and their normalisation."""

from __future__ import annotations

from typing import Any

from vlmkit.encoders.base import Encoder
from vlmkit.preprocess.policies.base import ImagePolicy, Resample
from vlmkit.preprocess.policies.center_crop import CenterCrop
from vlmkit.preprocess.policies.edge_cap import EdgeCap
from vlmkit.preprocess.policies.pad_square import MEAN_COLOUR, PadSquare
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import SpecError

_RESAMPLE: tuple[Resample, ...] = ("nearest", "lanczos", "bilinear", "bicubic")
"""In the order of Pillow's numbers."""


def normalisation(processor: Any) -> dict[str, Any]:
    """Mean and std of a published image processor, as fields of an encoder. A single number is that of all three colours."""
    stated = {"mean": processor.image_mean, "std": processor.image_std}
    return {name: tuple(map(float, value)) if isinstance(value, list | tuple) else (float(value),) * 3 for name, value in stated.items()}


def image_policy(processor: Any) -> ImagePolicy:
    """The policy of a published image processor that makes one view. Raises SpecError for any other."""
    resample = resample_of(processor)
    size = dict(processor.size)
    if "longest_edge" in size and hasattr(processor, "patch_size"):
        return EdgeCap(longest=size["longest_edge"], factor=processor.patch_size["height"], resample=resample)
    if getattr(processor, "do_pad", False) and "shortest_edge" in size:
        red, green, blue = (int(value * 255) for value in processor.image_mean)
        fill = (red, green, blue)
        return PadSquare(size=size["shortest_edge"], fill="mean" if fill == MEAN_COLOUR else fill, resample=resample)
    if getattr(processor, "do_center_crop", False) and size.get("shortest_edge") == processor.crop_size["height"]:
        return CenterCrop(size=size["shortest_edge"], resample=resample)
    if size.get("height") is not None and size.get("height") == size.get("width"):
        return Squash(size=size["height"], resample=resample)
    raise SpecError(f"image processor {type(processor).__name__} with size {size} is no policy that vlmkit has")


def resample_of(processor: Any) -> Resample:
    """The filter of a published image processor."""
    return _RESAMPLE[int(processor.resample)]


def resample_number(policy: ImagePolicy) -> int:
    """Pillow's number of a policy's filter."""
    return _RESAMPLE.index(policy.resample)


def image_processor(policy: ImagePolicy, encoder: Encoder) -> Any:
    """The transformers image processor of a policy that makes one view. Raises SpecError for any other."""
    from transformers import CLIPImageProcessor, LlavaImageProcessor, PixtralImageProcessor, SiglipImageProcessor

    common = {"image_mean": list(encoder.mean), "image_std": list(encoder.std), "resample": resample_number(policy)}
    if isinstance(policy, CenterCrop):
        square = {"height": policy.size, "width": policy.size}
        return CLIPImageProcessor(size={"shortest_edge": policy.size}, crop_size=square, do_center_crop=True, **common)
    if isinstance(policy, PadSquare):
        square = {"height": policy.size, "width": policy.size}
        return LlavaImageProcessor(size={"shortest_edge": policy.size}, crop_size=square, do_pad=True, **common)
    if isinstance(policy, Squash):
        return SiglipImageProcessor(size={"height": policy.size, "width": policy.size}, **common)
    if isinstance(policy, EdgeCap):
        patch = {"height": policy.factor, "width": policy.factor}
        return PixtralImageProcessor(size={"longest_edge": policy.longest}, patch_size=patch, **common)
    raise SpecError(f"policy {policy.kind!r} has no transformers image processor that makes one view")
