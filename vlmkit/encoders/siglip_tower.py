"""The tower of `siglip`: transformers' layers; Maya's leaves the first patch out."""

from __future__ import annotations

from vlmkit.encoders.hf_tower import TransformersViTTower
from vlmkit.encoders.siglip import Siglip


def build(spec: Siglip) -> TransformersViTTower:
    tower = TransformersViTTower(spec, spec.make())
    tower.prefix_dropped = 0 if spec.first_patch == "keep" else 1
    return tower
