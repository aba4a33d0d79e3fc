"""MolmoE-1B beside the other Molmos: its config has names of its own, and its weights hold experts.

The class that lies beside its weights (modeling_molmoe.py and config_molmoe.py of allenai/MolmoE-1B-0924) has a linear layer for each of an
expert's three projections. allenai/molmo trains with one matrix for all experts of a projection, those of the way out transposed
(`convert_state_dict_olmoe` of scripts/convert_hf_to_molmo.py). OlmoeForCausalLM stacks them, gate above up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from vlmkit.checkpoints.published import refuse_unknown
from vlmkit.spec import SpecError

NAMES = {
    "d_model": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "n_kv_heads": "num_key_value_heads",
    "mlp_hidden_size": "intermediate_size",
    "moe_num_experts": "num_experts",
    "moe_top_k": "num_experts_per_tok",
    "max_sequence_length": "max_position_embeddings",
}
"""Fields of MolmoE-1B's config -> what the other Molmos, or OlmoeForCausalLM, call them. Its `max_position_embeddings` is how far its table
of angles goes, eight times as far as it was trained."""
FIXED: dict[str, Any] = {
    "activation_type": "swiglu",
    "additional_vocab_size": 128,
    "alibi": False,
    "attn_logit_softcapping": None,
    "bias_for_layer_norm": False,
    "block_type": "moe",
    "clip_qkv": None,
    "final_logit_softcapping": None,
    "head_dim": None,
    "image_padding_embed": "pad_and_partial_pad",
    "image_pooling_2d": "attention-meanq",
    "image_pooling_h": 2,
    "image_pooling_w": 2,
    "image_projector": "mlp",
    "include_bias": False,
    "layer_norm_type": "rms",
    "moe_dropless": True,
    "moe_interleave": False,
    "moe_shared_expert": False,
    "normalize_input_embeds": False,
    "rope": True,
    "rope_impl": "llama",
    "scale_logits": False,
    "unconditioned": False,
    "use_cls_feature": False,
    "use_position_ids": True,
    "weight_tying": False,
}
"""What MolmoE-1B's config says and its class reads, and vlmkit builds no other way."""
PROJECTIONS = {"gate_proj": "w1", "up_proj": "v1", "down_proj": "w2"}
"""Of an expert, as published -> as allenai/molmo has it."""
BLOCK, LAYER = "transformer.blocks.", "language_model.model.layers."
OURS = ("gate_up_proj", "down_proj")


def is_sparse(config: Mapping[str, Any]) -> bool:
    """Whether a published config is one of MolmoE-1B's kind."""
    return config.get("block_type") == "moe" or "moe_num_experts" in config


def as_others(config: Mapping[str, Any]) -> dict[str, Any]:
    """MolmoE-1B's config in the names of the other Molmos. Raises SpecError for what is not built."""
    refuse_unknown("config.json", {name: config[name] for name in FIXED if name in config}, FIXED, ("additional_vocab_size",))
    found = dict(config) | {NAMES[name]: config[name] for name in NAMES if config.get(name) is not None}
    found.setdefault("intermediate_size", config.get("mlp_ratio", 4) * config["d_model"])
    return found


def as_sparse(config: Mapping[str, Any], unspoken: int) -> dict[str, Any]:
    """The inverse; `unspoken` embeddings stand behind the vocabulary."""
    ours = {theirs: name for name, theirs in NAMES.items()}
    found = {ours.get(name, name): value for name, value in config.items()}
    dropouts = dict.fromkeys(("attention_dropout", "embedding_dropout", "residual_dropout"), 0.0)
    return found | FIXED | dropouts | {"additional_vocab_size": unspoken, "moe_loss_weight": 0.0}


def stacked(weights: Mapping[str, Tensor], experts: int) -> dict[str, Tensor]:
    """Weights in upstream's names, of either kind, with experts as OlmoeForCausalLM has them. Raises SpecError where one is missing."""
    rest = dict(weights)
    numbers = sorted({name.removeprefix(BLOCK).partition(".")[0] for name in weights if name.startswith(BLOCK)}, key=int)
    found: dict[str, Tensor] = {}
    for number in numbers:
        gate, up, down = (_all(rest, number, name, experts) for name in PROJECTIONS)
        found |= {f"{LAYER}{number}.mlp.experts.gate_up_proj": torch.cat([gate, up], dim=1)}
        found |= {f"{LAYER}{number}.mlp.experts.down_proj": down}
    return found | rest


def apart(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The model's weights with experts one by one, as the published class has them."""
    found = dict(weights)
    for name in weights:
        layer, _, kind = name.rpartition(".mlp.experts.")
        if not layer.startswith(LAYER) or kind not in OURS:
            continue
        value = found.pop(name)
        into = f"{BLOCK}{layer.removeprefix(LAYER)}.mlp.experts"
        for expert, own in enumerate(value):
            pieces = zip(("gate_proj", "up_proj"), own.chunk(2), strict=True) if kind == "gate_up_proj" else [("down_proj", own)]
            found |= {f"{into}.{expert}.{part}.weight": piece.clone() for part, piece in pieces}
    return found


def _all(rest: dict[str, Tensor], number: str, name: str, experts: int) -> Tensor:
    """(E, out, in) of one projection of a block, taken out of the weights."""
    whole = f"{BLOCK}{number}.ffn.experts.mlp.{PROJECTIONS[name]}"
    if whole in rest:
        matrix = rest.pop(whole)
        found = matrix.view(experts, -1, matrix.shape[-1])
        return found.transpose(1, 2).contiguous() if name == "down_proj" else found
    names = [f"{BLOCK}{number}.mlp.experts.{expert}.{name}.weight" for expert in range(experts)]
    if missing := [one for one in names if one not in rest]:
        raise SpecError(f"the weights are not complete: missing {missing[0]} of {experts} experts")
    return torch.stack([rest.pop(one) for one in names])
