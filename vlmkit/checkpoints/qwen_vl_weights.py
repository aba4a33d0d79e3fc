"""Qwen-VL's weights under the names of its code, and under vlmkit's. Values are kept; three kinds are cut or turned otherwise there:

- of the tower, one matrix makes queries, keys and values head by head, (heads, 3, d); here all queries, then keys, then values;
- of the language model, one makes queries, then keys, then values; here there are three;
- the matrix behind the resampler's last norm multiplies from the right; here it is a linear layer.

A table of positions lies among the weights that is computed here: reading compares it, writing adds it.
"""

from __future__ import annotations

import re

import torch
from einops import rearrange
from torch import Tensor

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.family import Renames, translate
from vlmkit.connectors.positions import sincos_2d
from vlmkit.connectors.resampler import Resampler
from vlmkit.encoders.open_clip import OpenClip
from vlmkit.spec import SpecError

POSITIONS = "transformer.visual.attn_pool.pos_embed"
TOWER: Renames = (
    ("encoder.", "transformer.visual."),
    ("connector.ln_post.", "transformer.visual.ln_post."),
    ("connector.proj.weight", "transformer.visual.proj"),
    ("connector.", "transformer.visual.attn_pool."),
    ("language_model.model.embed_tokens.", "transformer.wte."),
    ("language_model.model.norm.", "transformer.ln_f."),
    ("language_model.lm_head.", "lm_head."),
    ("language_model.model.layers.", "transformer.h."),
)
LAYER: dict[str, str] = {
    "input_layernorm": "ln_1",
    "post_attention_layernorm": "ln_2",
    "self_attn.c_attn": "attn.c_attn",
    "self_attn.o_proj": "attn.c_proj",
    "mlp.up_proj": "mlp.w1",
    "mlp.gate_proj": "mlp.w2",
    "mlp.down_proj": "mlp.c_proj",
}
"""Names within a layer of the language model."""
BACK = {theirs: ours for ours, theirs in LAYER.items()}
REVERSED: Renames = tuple(sorted(TOWER, key=lambda pair: len(pair[1]), reverse=True))
"""Longer names of theirs first."""
OURS = re.compile(rf"(language_model\.model\.layers\.\d+)\.({'|'.join(LAYER)})\.")
THEIRS = re.compile(rf"(transformer\.h\.\d+)\.({'|'.join(LAYER.values())})\.")
TURNED = re.compile(r"(.*\.resblocks\.\d+\.attn\.in_proj)[._](weight|bias)")
FUSED = re.compile(r"(language_model\.model\.layers\.\d+\.self_attn)\.([qkv]_proj|c_attn)\.(weight|bias)")
SPLIT = ("q_proj", "k_proj", "v_proj")


def to_ours(weights: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Published weights under vlmkit's names. Raises SpecError for other positions than those that are computed."""
    encoder = architecture.encoder
    assert isinstance(encoder, OpenClip)
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if name == POSITIONS:
            refuse_other_positions(tensor)
            continue
        if name.endswith(("rotary_emb.inv_freq", "attn.masked_bias", "registered_causal_mask")):
            continue  # what older versions of the code kept beside the weights
        ours = translate(THEIRS.sub(lambda match: f"{match[1]}.{BACK[match[2]]}.", name), REVERSED, to_ours=True)
        if turned := TURNED.fullmatch(ours):
            name = f"{turned[1]}_{turned[2]}"
            found[name] = rearrange(tensor, "(heads three d) ... -> (three heads d) ...", heads=encoder.heads, three=3)
        elif fused := FUSED.fullmatch(ours):
            parts = zip(SPLIT, tensor.chunk(3), strict=True)
            found |= {f"{fused[1]}.{part}.{fused[3]}": piece.clone() for part, piece in parts}
        else:
            found[ours] = tensor.T.contiguous() if ours == "connector.proj.weight" else tensor
    return found


def to_theirs(weights: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """The inverse."""
    encoder, connector = architecture.encoder, architecture.connector
    assert isinstance(encoder, OpenClip)
    assert isinstance(connector, Resampler)
    found: dict[str, Tensor] = {}
    for name, tensor in weights.items():
        if turned := TURNED.fullmatch(name):
            name = f"{turned[1]}.{turned[2]}"
            tensor = rearrange(tensor, "(three heads d) ... -> (heads three d) ...", heads=encoder.heads, three=3)
        elif fused := FUSED.fullmatch(name):
            if fused[2] != SPLIT[0]:
                continue
            tensor = torch.cat([weights[f"{fused[1]}.{part}.{fused[3]}"] for part in SPLIT])
            name = f"{fused[1]}.c_attn.{fused[3]}"
        elif name == "connector.proj.weight":
            tensor = tensor.T
        found[translate(OURS.sub(lambda match: f"{match[1]}.{LAYER[match[2]]}.", name), TOWER, to_ours=False)] = tensor
    table = sincos_2d(connector.side, connector.side, architecture.language_model.dim)
    return found | {POSITIONS: table.to(found["transformer.visual.proj"].dtype)}


def refuse_other_positions(table: Tensor) -> None:
    """Raise SpecError where a stored table is not the one that is computed, but for what its dtype rounds away."""
    side = round(len(table) ** 0.5)
    expected = sincos_2d(side, side, table.shape[1])
    if (apart := float((table.float() - expected).abs().max())) > 0.02:
        raise SpecError(f"{POSITIONS}: expected the sines and cosines of a {side}x{side} grid, but a value is {apart:.3f} apart")
