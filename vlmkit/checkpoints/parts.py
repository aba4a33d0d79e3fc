"""Vision towers, which several families' checkpoints describe in the same words; image_processors.py has what goes before them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmkit.encoders import encoders
from vlmkit.encoders.base import Encoder, ViT
from vlmkit.preprocess.policies.base import ImagePolicy
from vlmkit.preprocess.policies.edge_cap import EdgeCap
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from transformers import PretrainedConfig

TOWERS = {"aimv2_vision_model": "aimv2", "clip_vision_model": "clip", "pixtral": "pixtral", "siglip_vision_model": "siglip"}
"""transformers' `model_type` of a vision tower -> the encoder of that kind."""

FIRST_TOKEN = {"clip": "class_token", "siglip": "first_patch"}
"""The field of an encoder that says whether the first token of its sequence is dropped."""


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
