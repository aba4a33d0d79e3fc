"""Molmo's weights under the names of allenai/molmo and of MolmoForCausalLM (`model.` before each), and back.

Upstream keeps queries, keys and values of a block of the language model in one matrix, gate and up of its MLP in another with the gate
behind, cuts a patch by (row, column, channel), and has tables of its own for the words behind the vocabulary. MolmoE-1B's class has modules
of attention and of experts within a block, and its head beside the model; allenai/molmo has neither, and is read as well.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.molmo_experts import BLOCK, LAYER, apart, stacked
from vlmkit.spec import SpecError

PREFIX = "model."
VISION = "vision_backbone."
HEAD, OWN_HEAD = "lm_head.weight", "language_model.lm_head.weight"
"""MolmoE-1B's, which has no prefix."""
EMBEDDINGS = ("transformer.wte.embedding", "transformer.wte.new_embedding")
WHOLE = {
    "transformer.ln_f.weight": "language_model.model.norm.weight",
    "transformer.ff_out.weight": "language_model.lm_head.weight",
    f"{VISION}pad_embed": "encoder.marks.pad_embed",
    f"{VISION}image_vit.class_embedding": "encoder.embeddings.class_embedding",
    f"{VISION}image_vit.positional_embedding": "encoder.embeddings.position_embedding.weight",
    f"{VISION}image_vit.pre_ln.weight": "encoder.pre_layrnorm.weight",
    f"{VISION}image_vit.pre_ln.bias": "encoder.pre_layrnorm.bias",
}
"""Theirs -> ours."""
PATCHES = (f"{VISION}image_vit.patch_embedding.weight", "encoder.embeddings.patch_embedding.weight")
CONNECTOR = ("image_pooling_2d.", "image_projector.")
RESBLOCK = (f"{VISION}image_vit.transformer.resblocks.", "encoder.encoder.layers.")
IN_RESBLOCK = {
    "attention.wq": "self_attn.q_proj",
    "attention.wk": "self_attn.k_proj",
    "attention.wv": "self_attn.v_proj",
    "attention.wo": "self_attn.out_proj",
    "feed_forward.w1": "mlp.fc1",
    "feed_forward.w2": "mlp.fc2",
    "attention_norm": "layer_norm1",
    "ffn_norm": "layer_norm2",
}
IN_BLOCK = {"attn_out": "self_attn.o_proj", "ff_out": "mlp.down_proj", "q_norm": "self_attn.q_norm", "k_norm": "self_attn.k_norm"}
NORMS = {
    "qwen2": {"attn_norm": "input_layernorm", "ff_norm": "post_attention_layernorm"},
    "olmo2": {"attn_norm": "post_attention_layernorm", "ff_norm": "post_feedforward_layernorm"},
    "olmoe": {"attn_norm": "input_layernorm", "ff_norm": "post_attention_layernorm", "ffn.router.layer": "mlp.gate"},
}
"""By the language model's type; those of OLMo 2 stand behind attention and MLP."""
IN_MODULES = {
    "attn.attn_out": "self_attn.o_proj",
    "attn.q_norm": "self_attn.q_norm",
    "attn.k_norm": "self_attn.k_norm",
    "attn.attn_norm": "input_layernorm",
    "mlp.ff_norm": "post_attention_layernorm",
    "mlp.gate": "mlp.gate",
}
"""Within a block of MolmoE-1B's class."""
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
JOINED = {"att_proj": QKV, "ff_proj": ("mlp.up_proj", "mlp.gate_proj"), "attn.att_proj": QKV}


def decoder_names(architecture: Architecture) -> dict[str, str]:
    """Names within a block of the language model, theirs -> ours; of two the published class has the latter. Raises SpecError for one that
    vlmkit has no map of."""
    model_type = architecture.language_model.model_type
    if model_type not in NORMS:
        raise SpecError(f"weights of Molmo are mapped for language models of type {', '.join(NORMS)}, not of {model_type!r}")
    return IN_BLOCK | NORMS[model_type] | (IN_MODULES if is_sparse(architecture) else {})


def is_sparse(architecture: Architecture) -> bool:
    return architecture.language_model.model_type == "olmoe"


def to_ours(weights: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Upstream's state dict, with or without `model.` before each name -> the model's. Names that have no counterpart stay as they are."""
    names, spec = decoder_names(architecture), architecture.language_model.config
    heads, keys = spec["num_attention_heads"], spec.get("num_key_value_heads") or spec["num_attention_heads"]
    found: dict[str, Tensor] = {}
    theirs = {name.removeprefix(PREFIX): value for name, value in weights.items()}
    if is_sparse(architecture):
        theirs = stacked(theirs, spec["num_experts"])
        if HEAD in theirs:
            found[OWN_HEAD] = theirs.pop(HEAD)
    if all(name in theirs for name in EMBEDDINGS):
        found["language_model.model.embed_tokens.weight"] = torch.cat([theirs.pop(name) for name in EMBEDDINGS])
    for name, value in theirs.items():
        if name in WHOLE:
            found[WHOLE[name]] = value
        elif name == PATCHES[0]:
            side = architecture.encoder.patch_size
            found[PATCHES[1]] = value.view(-1, side, side, 3).permute(0, 3, 1, 2).contiguous()
        elif name.startswith(tuple(VISION + part for part in CONNECTOR)):
            found[f"connector.{name.removeprefix(VISION)}"] = value
        elif name.startswith(RESBLOCK[0]):
            number, part, end = _split(name.removeprefix(RESBLOCK[0]))
            found[f"{RESBLOCK[1]}{number}.{IN_RESBLOCK.get(part, part)}.{end}"] = value
        elif name.startswith(BLOCK):
            number, part, end = _split(name.removeprefix(BLOCK))
            into = f"{LAYER}{number}."
            if part in JOINED:
                rows = len(value) // (heads + 2 * keys)
                sizes = [heads * rows, keys * rows, keys * rows] if JOINED[part] is QKV else [len(value) // 2] * 2
                for one, piece in zip(JOINED[part], value.split(sizes), strict=True):  # type: ignore[no-untyped-call]
                    found[f"{into}{one}.{end}"] = piece.contiguous()
            else:
                found[f"{into}{names.get(part, part)}.{end}"] = value
        else:
            found[name] = value
    return found


def to_theirs(weights: Mapping[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """The inverse, with `model.` before each name, as MolmoForCausalLM has them."""
    sparse = is_sparse(architecture)
    names = {ours: theirs for theirs, ours in decoder_names(architecture).items()}
    whole = {ours: theirs for theirs, ours in WHOLE.items()}
    in_resblock = {ours: theirs for theirs, ours in IN_RESBLOCK.items()}
    if sparse:
        weights, whole[OWN_HEAD] = apart(weights), HEAD
    first = {ours[0]: (theirs, ours) for theirs, ours in JOINED.items() if sparse == ("." in theirs)}
    further = {one for ours in JOINED.values() for one in ours[1:]}
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        if name in whole:
            found[whole[name]] = value
        elif name == PATCHES[1]:
            found[PATCHES[0]] = value.permute(0, 2, 3, 1).flatten(1).contiguous()
        elif name == "language_model.model.embed_tokens.weight":
            rows = architecture.language_model.vocabulary
            found |= {theirs: part.clone() for theirs, part in zip(EMBEDDINGS, (value[:rows], value[rows:]), strict=True)}
        elif name.startswith("connector."):
            found[VISION + name.removeprefix("connector.")] = value
        elif name.startswith(RESBLOCK[1]):
            number, part, end = _split(name.removeprefix(RESBLOCK[1]))
            found[f"{RESBLOCK[0]}{number}.{in_resblock.get(part, part)}.{end}"] = value
        elif name.startswith(LAYER):
            number, part, end = _split(name.removeprefix(LAYER))
            if part in first:
                theirs, ours = first[part]
                pieces = [weights[f"{LAYER}{number}.{one}.{end}"] for one in ours]
                found[f"{BLOCK}{number}.{theirs}.{end}"] = torch.cat(pieces)
            elif part not in further:
                found[f"{BLOCK}{number}.{names.get(part, part)}.{end}"] = value
        else:
            found[name] = value
    return {name if name == HEAD else PREFIX + name: value for name, value in found.items()}


def _split(name: str) -> tuple[str, str, str]:
    """'3.attention.wq.weight' -> ('3', 'attention.wq', 'weight')"""
    number, _, rest = name.partition(".")
    part, _, end = rest.rpartition(".")
    return number, part, end
