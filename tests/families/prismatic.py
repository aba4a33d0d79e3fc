"""Prismatic, which no class of transformers is: what it states about itself, for a row of the table that is compared by parts."""

from __future__ import annotations

from typing import NoReturn

import timm
import torch
from families.system import System

from vlmkit.architecture import Parameters

LANGUAGE = {"prismatic-dinosiglip-7b": (4096, 6_738_939_904), "prismatic-dinosiglip-13b": (5120, 13_016_519_680)}
"""Width and parameters of Llama 2 with the vocabulary filled up to 32,064."""


def towers() -> int:
    """Parameters of timm's two towers without what stands above the last block but one."""
    count = 0
    with torch.device("meta"):
        for name in ("vit_large_patch14_reg4_dinov2", "vit_so400m_patch14_siglip_384"):
            vit = timm.create_model(name, num_classes=0)
            above = (vit.blocks[-1], vit.norm, *([vit.attn_pool] if vit.attn_pool is not None else []))
            left_out = sum(parameter.numel() for module in above for parameter in module.parameters())
            count += sum(parameter.numel() for parameter in vit.parameters()) - left_out
    return count


def projector(dim: int) -> int:
    """2176 -> 8704 -> D_lm -> D_lm, each with a bias."""
    return 2176 * 8704 + 8704 + 8704 * dim + dim + dim * dim + dim


COUNTS = {name: Parameters(towers(), projector(dim), 0, language) for name, (dim, language) in LANGUAGE.items()}


def no_whole() -> NoReturn:
    raise LookupError("there is no published whole to compare with")


ROW = System(
    title="Prismatic",
    counts=COUNTS,
    tiny="prismatic-tiny",
    reference=no_whole,
    compared_with="by parts: each tower with timm's `get_intermediate_layers`, pixels with PIL's under its transforms, the projector "
    "with its equations, ids with its prompt; logits, generation and checkpoints have nothing to be compared with",
)
