"""Names of weights of github.com/PKU-YuanGroup/MoE-LLaVA and under vlmkit's. All values are kept; experts, which are modules of their own
in DeepSpeed's layer, are rows of one tensor here."""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from vlmkit.checkpoints.family import Renames, translate

RENAMES: Renames = (
    ("encoder.", "model.image_tower.image_tower.vision_model."),
    ("connector.linear.", "model.mm_projector.image_spatial_proj."),
    ("connector.layers.", "model.mm_projector.image_spatial_proj."),
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.", "model."),
)
COMPUTED = (".rotary_emb.inv_freq", ".embeddings.position_ids")
"""Ends of names of what older versions of transformers kept beside the weights."""
ROUTER = (".mlp.deepspeed_moe.gate.wg.", ".mlp.gate.")
EXPERT = re.compile(r"(.*\.mlp\.)deepspeed_moe\.experts\.deepspeed_experts\.([0-9]{1,4})\.(.*)")
OURS = re.compile(r"(.*\.mlp\.)experts\.(.*)")


def to_ours(weights: Mapping[str, Tensor], connector: str) -> dict[str, Tensor]:
    """Published weights under vlmkit's names; connector: its kind. Experts that are not numbered from 0 on keep their names."""
    kept = "connector.linear." if connector == "linear" else "connector.layers."
    names = tuple(pair for pair in RENAMES if not pair[0].startswith("connector.") or pair[0] == kept)
    found: dict[str, Tensor] = {}
    experts: dict[str, dict[int, tuple[str, Tensor]]] = {}
    for name, value in weights.items():
        if name.endswith(COMPUTED):
            continue
        ours = translate(name, names, to_ours=True)
        if expert := EXPERT.fullmatch(ours):
            experts.setdefault(f"{expert[1]}experts.{expert[3]}", {})[int(expert[2])] = name, value
        else:
            found[ours.replace(ROUTER[0], ROUTER[1])] = value
    for ours, numbered in experts.items():
        alike = len({value.shape for _, value in numbered.values()}) == 1
        if alike and sorted(numbered) == [*range(len(numbered))]:
            found[ours] = torch.stack([numbered[number][1] for number in range(len(numbered))])
        else:
            found |= dict(numbered.values())
    return found


def to_theirs(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        theirs = translate(name, RENAMES, to_ours=False).replace(ROUTER[1], ROUTER[0])
        if experts := OURS.fullmatch(theirs):
            for number, one in enumerate(value):
                found[f"{experts[1]}deepspeed_moe.experts.deepspeed_experts.{number}.{experts[2]}"] = one.clone()
        else:
            found[theirs] = value
    return found
