"""Prismatic's weights under the names of its code, and under vlmkit's. Values are kept and nothing is cut; names alone change:

- a tower's are timm's, but for the scales of its layers: transformers would rename a `gamma`, so they are `scale_factor` there;
- blocks and norms that no feature depends on, the pooling head among them, stand in `unread` here, beside the others there.
"""

from __future__ import annotations

import re

from torch import Tensor

from vlmkit.architecture import Architecture

PLACES = ("vision_backbone.featurizer.", "vision_backbone.fused_featurizer.")
LAYERS = {"fc1": "0", "fc2": "2", "fc3": "4"}
"""Linear layers of the projector -> their numbers in an mlp."""
SCALE = re.compile(r"(\.ls[12]\.)(gamma|scale_factor)$")
UNREAD = re.compile(r"blocks\.(\d+)\.")
BACK = {number: name for name, number in LAYERS.items()}


def _prefixes(architecture: Architecture) -> tuple[tuple[str, ...], str]:
    """Of each tower, and of the layers of the connector, under vlmkit's names."""
    if architecture.beside:
        return tuple(f"encoder.{number}." for number in range(len(architecture.towers))), "connector.inner.layers."
    return ("encoder.",), "connector.layers."


def to_ours(weights: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Published weights under vlmkit's names; those that have no place there keep theirs."""
    towers, connector = _prefixes(architecture)
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        number = next((number for number, place in enumerate(PLACES) if name.startswith(place)), None)
        if number is not None and number < len(towers):
            inner = SCALE.sub(r"\1gamma", name.removeprefix(PLACES[number]))
            within = "unread" if _is_unread(inner, max(architecture.towers[number].encoder.depths)) else "vit"  # type: ignore[attr-defined]
            name = f"{towers[number]}{within}.{inner}"
        elif name.startswith("projector."):
            layer, _, kind = name.removeprefix("projector.").partition(".")
            name = f"{connector}{LAYERS.get(layer, layer)}.{kind}"
        found[name] = tensor
    return found


def _is_unread(name: str, depth: int) -> bool:
    """Whether a tower that applies no norm and reads the block of this depth leaves a weight of timm's unread."""
    block = UNREAD.match(name)
    return int(block[1]) >= depth if block else name.partition(".")[0] in ("norm", "fc_norm", "attn_pool")


def to_theirs(weights: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """The inverse."""
    towers, connector = _prefixes(architecture)
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        number = next((number for number, prefix in enumerate(towers) if name.startswith(prefix)), None)
        if number is not None:
            inner = name.removeprefix(towers[number]).partition(".")[2]
            name = PLACES[number] + SCALE.sub(r"\1scale_factor", inner)
        elif name.startswith(connector):
            layer, _, kind = name.removeprefix(connector).partition(".")
            name = f"projector.{BACK[layer]}.{kind}"
        found[name] = tensor
    return found
