"""Prismatic's towers and what stands before them, as config.json and preprocessor_config.json of its checkpoints state them.

timm's CLIP of OpenAI is one model with another activation there (`timm_override_act_layers`), and a model of its own in today's timm:
vit_large_patch14_clip_336 beside quick_gelu is vit_large_patch14_clip_quickgelu_336.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vlmkit.architecture import VisionTower
from vlmkit.encoders.timm import Timm
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import SpecError

FILTERS = {"bilinear": 2, "bicubic": 3}
"""timm's names -> Pillow's numbers."""
GELU, QUICK = "_clip_", "_clip_quickgelu_"
FIELDS = ("image_resize_strategy", "input_sizes", "interpolations", "means", "stds", "use_fused_vision_backbone")
EPSILON = 1e-6
"""What float32 rounds away of a mean."""


def towers_of(config: dict[str, Any], pixels: dict[str, Any]) -> list[VisionTower]:
    """Raises SpecError for what vlmkit does not build, and where the two files disagree."""
    names, sizes = config["timm_model_ids"], config["image_sizes"]
    activations = config.get("timm_override_act_layers") or [None] * len(names)
    if missing := [name for name in FIELDS if name not in pixels]:
        raise SpecError(f"preprocessor_config.json states no {', '.join(missing)}")
    lists = {"image_sizes": sizes, "timm_override_act_layers": activations}
    lists |= {f"preprocessor_config.json: {name}": pixels[name] for name in ("input_sizes", "interpolations", "means", "stds")}
    if other := next((name for name, each in lists.items() if not isinstance(each, list) or len(each) != len(names)), None):
        raise SpecError(f"{other}: expected an entry for each of timm_model_ids {names}, got {lists[other]}")
    if pixels["image_resize_strategy"] != config["image_resize_strategy"]:
        said = pixels["image_resize_strategy"], config["image_resize_strategy"]
        raise SpecError(f"preprocessor_config.json.image_resize_strategy is {said[0]!r}, but config.json says {said[1]!r}")
    if len({tuple(size) for size in pixels["input_sizes"]}) > 1:
        raise SpecError(f"preprocessor_config.json.input_sizes: expected one size for all towers, got {pixels['input_sizes']}")
    found = []
    for number, (name, size, activation) in enumerate(zip(names, sizes, activations, strict=True)):
        if pixels["input_sizes"][number] != [3, size, size] or pixels["interpolations"][number] not in FILTERS:
            said = pixels["input_sizes"][number], pixels["interpolations"][number]
            raise SpecError(
                f"preprocessor_config.json: tower {name} sees {said[0]} by {said[1]!r}; expected [3, {size}, {size}], as image_sizes says, "
                f"by one of {', '.join(FILTERS)}"
            )
        mean, std = (_normalisation(pixels, number, kind) for kind in ("mean", "std"))
        encoder = Timm(model=_own_name(name, activation), image_size=size, layer=-2, final_norm=False, keep_unused=True, mean=mean, std=std)
        seen = size // encoder.patch * encoder.patch
        policy = Squash(size=size, view=None if seen == size else seen, resample=pixels["interpolations"][number])
        found.append(VisionTower(policy=policy, encoder=encoder))
    return found


def _own_name(name: str, activation: str | None) -> str:
    """Today's timm model of an upstream name beside the activation that is put in. Raises SpecError for another activation."""
    if activation is None or (activation == "quick_gelu" and QUICK in name):
        return name
    if activation != "quick_gelu" or GELU not in name:
        raise SpecError(f"timm_override_act_layers: {activation!r} of {name} is not built; expected null, or 'quick_gelu' of a CLIP")
    return name.replace(GELU, QUICK)


def _normalisation(pixels: dict[str, Any], number: int, kind: str) -> tuple[float, float, float]:
    """What upstream's processor normalises with, which is not always what it states as its mean."""
    stated = pixels[f"{kind}s"][number]
    told = pixels.get("tvf_normalize_params")
    used = stated if told is None else told[number][kind]
    if len(used) != 3:
        raise SpecError(f"preprocessor_config.json.{kind}s: expected three numbers, got {used}")
    red, green, blue = stated if max(abs(one - other) for one, other in zip(stated, used, strict=True)) < EPSILON else used
    return float(red), float(green), float(blue)


def tower_of(tower: VisionTower) -> dict[str, Any]:
    """Name, activation and image size of a tower. Raises SpecError for one that upstream's class does not make."""
    encoder, policy = tower.encoder, tower.policy
    if not isinstance(encoder, Timm) or not isinstance(policy, Squash):
        raise SpecError(f"Prismatic squashes images before towers of 'timm', but these are {policy.kind!r} and {encoder.kind!r}")
    if encoder.custom or encoder.levels or not encoder.keep_unused:
        raise SpecError(
            f"Prismatic has whole vision transformers of timm with timm's own numbers; use keep_unused=True, the encoder is {encoder}"
        )
    tag = encoder.checkpoint if (encoder.checkpoint or "").partition(".")[0] == encoder.model else None
    name = tag or encoder.model
    quick = QUICK in name
    return {"id": name.replace(QUICK, GELU), "activation": "quick_gelu" if quick else None, "size": encoder.image_size}


def pixels_of(towers: Sequence[VisionTower]) -> dict[str, Any]:
    """preprocessor_config.json. Raises SpecError for a filter that upstream's transforms do not have."""
    for tower in towers:
        tower_of(tower)
    filters = [tower.policy.resample for tower in towers]
    if other := next((name for name in filters if name not in FILTERS), None):
        raise SpecError(f"Prismatic's images are resized by one of {', '.join(FILTERS)}, but the policy's filter is {other!r}")
    if not all(tower.policy.antialias for tower in towers):
        raise SpecError(f"Prismatic's filters are widened when shrinking, but the policies are {[str(tower.policy) for tower in towers]}")
    sides = [[tower.policy.size] * 2 for tower in towers]  # type: ignore[attr-defined]
    normalised = [{"mean": list(tower.encoder.mean), "std": list(tower.encoder.std), "inplace": False} for tower in towers]
    return {
        "image_processor_type": "PrismaticImageProcessor",
        "processor_class": "PrismaticProcessor",
        "image_resize_strategy": "resize-naive",
        "use_fused_vision_backbone": len(towers) > 1,
        "input_sizes": [[3, *side] for side in sides],
        "interpolations": filters,
        "means": [each["mean"] for each in normalised],
        "stds": [each["std"] for each in normalised],
        "tvf_resize_params": [
            {"size": side, "interpolation": FILTERS[name], "max_size": None, "antialias": True}
            for side, name in zip(sides, filters, strict=True)
        ],
        "tvf_crop_params": [{"output_size": side} for side in sides],
        "tvf_normalize_params": normalised,
        "tvf_do_letterbox": False,
        "tvf_letterbox_fill": None,
    }
