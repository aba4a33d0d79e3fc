"""The vision tower of a directory of github.com/haotian-liu/LLaVA: where `mm_vision_tower` says, as transformers' CLIPVisionModel."""

from __future__ import annotations

import os
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlmkit.architecture import Architecture
from vlmkit.checkpoint_directory import HUB_NAME
from vlmkit.checkpoint_files import look_at, reading
from vlmkit.checkpoints.image_processors import normalisation
from vlmkit.checkpoints.llava_original_weights import TOWER
from vlmkit.checkpoints.one_view import image_processor
from vlmkit.checkpoints.parts import encoder_config, encoder_from
from vlmkit.checkpoints.published import write_json, write_weights
from vlmkit.encoders.base import Encoder
from vlmkit.encoders.clip import Clip
from vlmkit.hub import refuse_unreachable
from vlmkit.preprocess.policies.anyres import AnyRes
from vlmkit.preprocess.policies.center_crop import CenterCrop
from vlmkit.preprocess.policies.pad_square import PadSquare
from vlmkit.spec import SpecError
from vlmkit.zoo.llava import CLIP_L_336
from vlmkit.zoo.llava_v1 import CLIP_L_224
from vlmkit.zoo.llm2clip import LLM2CLIP_7B

FOLDER = "vit"
"""Where a tower is put that is published nowhere, as Yi-VL's is."""
KNOWN: dict[str, Any] = {encoder.checkpoint: encoder for encoder in (CLIP_L_336, CLIP_L_224, LLM2CLIP_7B.encoder)}  # type: ignore[attr-defined]
"""Published towers, whose numbers no hub has to be asked for: they see the middle of an image, normalised as CLIP does."""


@dataclass(frozen=True)
class Tower:
    place: str
    """A directory or a hub's name; of one that is written, what config.json says."""
    vision: Any
    """transformers' vision config."""
    images: Any
    """transformers' image processor."""
    published: str | None = None
    """Where the same tower is published; its weights may be others."""


def tower_at(directory: str, named: str) -> Tower:
    """The tower that a directory names, of which no weights are read. Raises SpecError where it is nowhere, or is no CLIPVisionModel."""
    from transformers import AutoConfig, AutoImageProcessor

    place = place_of(directory, named)
    if place in KNOWN:
        return _known(place)
    if os.path.isdir(place):
        look_at(place)
    try:
        refuse_unreachable(place, "config.json")
        vision = AutoConfig.from_pretrained(place, trust_remote_code=False)
        images = AutoImageProcessor.from_pretrained(place, trust_remote_code=False)
    except SpecError:
        raise
    except Exception as error:  # of whichever part of transformers reads them
        raise SpecError(
            f"config.json.mm_vision_tower: of {place!r}, config.json and preprocessor_config.json cannot be read: "
            f"{' '.join(str(error).split())}; name a directory that has both"
        ) from None
    vision = getattr(vision, "vision_config", vision)
    if vision.model_type != "clip_vision_model":
        raise SpecError(f"config.json.mm_vision_tower: {place!r} is of type {vision.model_type!r}; expected a CLIPVisionModel")
    return Tower(place, vision, images)


def place_of(directory: str, named: str) -> str:
    """The directory that `mm_vision_tower` names, within this one or elsewhere on this machine, or a hub's name."""
    if not os.path.isabs(named) and ".." in Path(named).parts:
        raise SpecError(f"config.json.mm_vision_tower: {named!r} leads out of the directory; name one within it, or by its whole path")
    for place in (Path(directory, named), Path(named)):
        if place.is_dir():
            return os.path.abspath(place)
    if os.path.isabs(named) or not HUB_NAME.fullmatch(named):
        raise SpecError(
            f"config.json.mm_vision_tower: the vision tower {named!r} is neither in {directory} nor elsewhere on this machine; put its "
            "directory there, or name the place where it is"
        )
    return named


def _known(place: str) -> Tower:
    from transformers import CLIPImageProcessor, CLIPVisionConfig

    encoder, side = KNOWN[place], KNOWN[place].image_size
    images = CLIPImageProcessor(
        size={"shortest_edge": side},
        crop_size={"height": side, "width": side},
        image_mean=list(encoder.mean),
        image_std=list(encoder.std),
    )
    return Tower(place, CLIPVisionConfig(**encoder.numbers()), images, published=place)


def encoder_of(config: dict[str, Any], tower: Tower) -> Encoder:
    """Raises SpecError for features that upstream does not select."""
    layer, feature = config.get("mm_vision_select_layer"), config.get("mm_vision_select_feature", "patch")
    if type(layer) is not int:
        raise SpecError(f"config.json.mm_vision_select_layer: expected a whole number, got {layer!r}")
    if feature not in ("patch", "cls_patch"):
        raise SpecError(f"config.json.mm_vision_select_feature: {feature!r} is not built; expected 'patch' or 'cls_patch'")
    strategy = "full" if feature == "cls_patch" else "default"
    found = encoder_from(tower.vision, layer=layer, strategy=strategy, **normalisation(tower.images))
    return found.replace(checkpoint=tower.place)


def tower_weights(directory: str, encoder: Encoder) -> dict[str, Tensor]:
    """The tower's weights under vlmkit's names, from where it was found. Raises SpecError where they cannot be had."""
    with torch.device("meta"):  # files may hold less than config.json says
        tower = encoder.build()
    place = encoder.checkpoint  # type: ignore[attr-defined]
    try:
        with reading(place) if os.path.isdir(place) else nullcontext():
            encoder.load_pretrained(tower)
    except SpecError:
        raise
    except OSError as error:
        raise SpecError(
            f"{directory} holds no weights of its vision tower, and those of {place!r}, which mm_vision_tower names, cannot be had: "
            f"{' '.join(str(error).split())}; fetch them where there is a network (hf download {place}), or let mm_vision_tower name a "
            "directory that has them"
        ) from None
    return {f"encoder.{name}": value for name, value in tower.state_dict().items()}


def tower_of(architecture: Architecture) -> Tower:
    """The tower of an architecture, as it is written. Raises SpecError for one that upstream's class does not read."""
    encoder, policy = architecture.encoder, architecture.policy
    if not isinstance(encoder, Clip) or isinstance(encoder.layer, tuple) or encoder.padding is not None:
        raise SpecError(f"LlavaLlamaForCausalLM reads one layer of a CLIPVisionModel, but the encoder is {encoder}")
    named = encoder.checkpoint or "clip"
    known = KNOWN.get(named)
    if known is not None and all(getattr(known, name) == getattr(encoder, name) for name in (*encoder.names, "mean", "std")):
        return _known(named)
    if isinstance(policy, PadSquare | AnyRes):
        if isinstance(policy, PadSquare):
            image_processor(policy, encoder)  # refuses another colour than the mean
        policy = CenterCrop(size=policy.size, view=policy.view, resample=policy.resample, antialias=policy.antialias)
    images = image_processor(policy, encoder)
    return Tower(f"./{FOLDER}/{os.path.basename(os.path.normpath(named))}", encoder_config(encoder, architecture.policy), images)


def write_tower(directory: str, named: str, tower: Tower, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Write the tower as a directory within the directory; the other weights."""
    place = os.path.join(directory, named)
    config = tower.vision.to_dict() | {"architectures": ["CLIPVisionModel"]}
    write_json(place, "config.json", config)
    tower.images.save_pretrained(place)
    write_weights(place, {f"vision_model.{name.removeprefix(TOWER)}": value for name, value in weights.items() if name.startswith(TOWER)})
    return {name: value for name, value in weights.items() if not name.startswith(TOWER)}
