"""Vision encoders (towers): patches go in, features come out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmkit.registry import Registry

if TYPE_CHECKING:
    from vlmkit.encoders.base import Encoder

encoders: Registry[Encoder] = Registry(
    "encoder",
    package=__name__,
    builtin=(
        "aimv2",
        "clip",
        "intern_vit",
        "mllama",
        "open_clip",
        "patches",
        "pixtral",
        "qwen2_vl",
        "siglip",
        "siglip2",
        "siglip_rotary",
        "timm",
    ),
)
