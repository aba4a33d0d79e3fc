"""Tiny towers with weights that show every mistake, and patches to put through them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vlmkit.encoders import encoders
from vlmkit.encoders.base import Encoder
from vlmkit.features import Grid

TINY: dict[str, dict[str, Any]] = {
    "aimv2": {"width": 32, "layers": 3, "heads": 4, "patch": 4, "image_size": 20, "mlp": 64, "positions": "bicubic_antialias"},
    "mllama": {
        "width": 32,
        "layers": 2,
        "global_layers": 1,
        "heads": 4,
        "patch": 4,
        "image_size": 20,
        "mlp": 64,
        "selected": (1,),
    },
    "open_clip": {"width": 32, "layers": 3, "heads": 4, "patch": 4, "image_size": 20},
    "clip": {"width": 32, "layers": 3, "heads": 4, "patch": 4, "image_size": 20, "mlp": 64, "positions": "bicubic_antialias"},
    "intern_vit": {"width": 32, "layers": 3, "heads": 4, "patch": 4, "image_size": 20, "mlp": 64, "positions": "bicubic_antialias"},
    "siglip": {"width": 32, "layers": 3, "heads": 4, "patch": 4, "image_size": 20, "mlp": 64, "positions": "bicubic_antialias"},
    "siglip2": {"width": 32, "layers": 3, "heads": 4, "patch": 4, "image_size": 20, "mlp": 64},
    "siglip_rotary": {"width": 32, "layers": 3, "heads": 4, "patch": 4, "mlp": 64},
    "patches": {"patch": 4},
    "pixtral": {"width": 32, "layers": 3, "heads": 4, "patch": 4, "mlp": 64},
    "qwen2_vl": {"width": 32, "layers": 3, "heads": 4, "patch": 4, "mlp": 64},
    "timm": {"custom": True, "width": 32, "layers": 3, "heads": 4, "patch": 4, "image_size": 20},
}


def tiny(kind: str, **changes: Any) -> Any:
    spec = encoders[kind](**(TINY[kind] | changes))
    assert isinstance(spec, Encoder)
    return spec


def draw(module: nn.Module, seed: int = 0) -> nn.Module:
    """Weights ~N(0, 0.15), norms ~N(1, 0.1): nothing is zero, nothing is one."""
    generator = torch.Generator().manual_seed(seed)
    norms = {id(child.weight) for child in module.modules() if type(child).__name__.endswith("Norm")}
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(1 + 0.1 * noise if id(parameter) in norms else 0.15 * noise)
    return module.eval()


def pixels(grids: tuple[Grid, ...], patch: int, seed: int = 0, frames: int = 1) -> Tensor:
    """(N, 3*t*p*p) uint8 patches of so many frames, t."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (sum(grid.tokens for grid in grids), 3 * frames * patch * patch), generator=generator, dtype=torch.uint8)


def patchify(images: Tensor, patch: int) -> Tensor:
    """(V, 3, H, W) -> (V * rows * columns, 3*p*p): the other way from the tower's, written on its own."""
    cells = images.unfold(2, patch, patch).unfold(3, patch, patch)
    return cells.permute(0, 2, 3, 1, 4, 5).flatten(0, 2).flatten(1)


def open_clip_to_timm(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's `visual` under timm's names."""
    plain = {"conv1.weight": "patch_embed.proj.weight", "ln_post": "norm", "ln_pre": "norm_pre", "transformer.resblocks": "blocks"}
    inner = {
        "attn.in_proj_": "attn.qkv.",
        "attn.out_proj": "attn.proj",
        "ln_1": "norm1",
        "ln_2": "norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    out = {"cls_token": weights["class_embedding"][None, None], "pos_embed": weights["positional_embedding"][None]}
    for name, value in weights.items():
        if name in ("class_embedding", "positional_embedding", "proj"):
            continue
        for old, new in (plain | inner).items():
            name = name.replace(old, new)
        out[name] = value
    return out


def open_clip_to_transformers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's `visual` under the names of transformers' CLIP."""
    plain = {
        "class_embedding": "embeddings.class_embedding",
        "positional_embedding": "embeddings.position_embedding.weight",
        "conv1": "embeddings.patch_embedding",
        "ln_pre": "pre_layrnorm",
        "ln_post": "post_layernorm",
        "transformer.resblocks": "encoder.layers",
        "attn.out_proj": "self_attn.out_proj",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    out = {}
    for name, value in weights.items():
        if name == "proj":
            continue
        for old, new in plain.items():
            name = name.replace(old, new)
        if "attn.in_proj_" in name:
            for part, piece in zip("qkv", value.chunk(3), strict=True):
                out[name.replace("attn.in_proj_", f"self_attn.{part}_proj.")] = piece
        else:
            out[name] = value
    return out
