"""Parts that several families' checkpoints describe in the same words: vision towers and image processors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmkit.encoders import encoders
from vlmkit.encoders.base import Encoder, ViT
from vlmkit.preprocess.policies.base import ImagePolicy, Resample
from vlmkit.preprocess.policies.center_crop import CenterCrop
from vlmkit.preprocess.policies.edge_cap import EdgeCap
from vlmkit.preprocess.policies.pad_square import MEAN_COLOUR, PadSquare
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TOWERS = {"aimv2_vision_model": "aimv2", "clip_vision_model": "clip", "pixtral": "pixtral", "siglip_vision_model": "siglip"}
"""transformers' `model_type` of a vision tower -> the encoder of that kind."""

FIRST_TOKEN = {"clip": "class_token", "siglip": "first_patch"}
"""The field of an encoder that says whether the first token of its sequence is dropped."""

_RESAMPLE: tuple[Resample, ...] = ("nearest", "lanczos", "bilinear", "bicubic")
"""In the order of Pillow's numbers."""


def encoder_from(config: PretrainedConfig, *, layer: Any, strategy: str, **fields: Any) -> Encoder:
    """The encoder of a published vision config whose hidden state `layer` is read, all of it (strategy "full") or without
    its first token ("default"). Raises SpecError for a tower that vlmkit does not have."""
    kind = TOWERS.get(config.model_type)
    if kind is None:
        raise SpecError(f"vision tower {config.model_type!r} is none of {', '.join(TOWERS)}")
    first = FIRST_TOKEN.get(kind)
    if first is not None:
        fields[first] = "keep" if strategy == "full" else "drop"
    elif strategy != "full":
        raise SpecError(f"vision_feature_select_strategy {strategy!r} drops the first patch, which vlmkit's {kind!r} tower cannot do")
    if issubclass(encoders[kind], ViT):
        fields["final_norm"] = False
    layer = tuple(layer) if isinstance(layer, list) else layer
    made: Encoder = encoders[kind].from_config(config, layer=layer, keep_unused=True, **fields)  # type: ignore[attr-defined]
    return made


def strategy_of(encoder: Encoder) -> str:
    """transformers' vision_feature_select_strategy of an encoder."""
    return "default" if getattr(encoder, FIRST_TOKEN.get(encoder.kind, ""), "keep") == "drop" else "full"


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


def encoder_config(encoder: Encoder, policy: ImagePolicy) -> PretrainedConfig:
    """The transformers config of a tower that came from transformers. Raises SpecError for any other.

    A tower that has no image size of its own is told the longest side that the policy gives it.
    """
    if encoder.kind not in TOWERS.values() or not encoder.whole:  # type: ignore[attr-defined]
        raise SpecError(f"encoder {encoder.kind!r} cannot be exported: use one of {', '.join(TOWERS.values())} with keep_unused=True")
    cls: Any = encoder.model_class().config_class  # type: ignore[attr-defined]
    size = {"image_size": policy.longest} if isinstance(policy, EdgeCap) else {}
    made: PretrainedConfig = cls(**(size | encoder.numbers() | encoder.headless))  # type: ignore[attr-defined]
    return made


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
