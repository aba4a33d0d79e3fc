"""Qwen-VL: what it states about itself, and a small directory as it is published, of which upstream's answers are kept."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from families.assembled import no_whole
from families.system import System
from numpy.typing import NDArray
from torch import Tensor

from vlmkit.architecture import Parameters

PUBLISHED = 9_656_935_168
"""Half the `total_size` of pytorch_model.bin.index.json, in bfloat16."""
TABLE = 256 * 4096
"""Values of the queries' positions, which lie in the published files and are computed here."""
COUNTS = Parameters(1_842_770_688, 91_791_360, 0, 7_721_324_544)

ROW = System(
    title="Qwen-VL",
    counts={"qwen-vl-9.6b": COUNTS, "qwen-vl-chat-9.6b": COUNTS},
    tiny="qwen-vl-tiny",
    reference=no_whole,
    compared_with="kept answers of upstream's code, which transformers does not have: QWenLMHeadModel, QWenTokenizer and make_context run "
    "over a small directory of the published layout, tests/families/qwen_vl_upstream.json; pixels with torchvision's under its transforms, "
    "which resize by PIL: both round after each of two passes, but torch's weights of the filter have 16 bits, so that a value in 200 "
    "falls on the other side once, and hardly any twice. What vlmkit exports was loaded by that class once, by hand",
)

KEPT: dict[str, Any] = json.loads(Path(__file__).with_name("qwen_vl_upstream.json").read_text(encoding="utf-8"))

MERGES = (b"Wh", b"at", b"What", b" i", b" is", b"Pi", b"ct")
RANKS = "".join(
    f"{base64.b64encode(word).decode()} {rank}\n" for rank, word in enumerate((*(bytes([byte]) for byte in range(256)), *MERGES))
)
IMG = 256 + len(MERGES) + 3 + 205 + 6
"""Id of <img>; </img> and <imgpad> follow."""
CONFIG: dict[str, Any] = {
    "model_type": "qwen",
    "hidden_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "kv_channels": 64,
    "intermediate_size": 512,
    "vocab_size": 512,
    "seq_length": 2048,
    "max_position_embeddings": 8192,
    "layer_norm_epsilon": 1e-6,
    "rotary_emb_base": 10000,
    "rotary_pct": 1.0,
    "use_dynamic_ntk": True,
    "use_logn_attn": True,
    "use_flash_attn": False,
    "no_bias": True,
    "attn_dropout_prob": 0.0,
    "emb_dropout_prob": 0.0,
    "initializer_range": 0.02,
    "scale_attn_weights": True,
    "tie_word_embeddings": False,
    "visual": {
        "heads": 4,
        "image_size": 56,
        "image_start_id": IMG,
        "layers": 2,
        "mlp_ratio": 2.0,
        "output_dim": 256,
        "patch_size": 14,
        "width": 48,
    },
}


def shapes() -> dict[str, tuple[int, ...]]:
    """Names and shapes of the published weights at these sizes, without the table of positions."""
    visual, layer = "transformer.visual.", {"attn.c_attn.weight": (768, 256), "attn.c_attn.bias": (768,), "attn.c_proj.weight": (256, 256)}
    layer |= {"ln_1.weight": (256,), "ln_2.weight": (256,), "mlp.c_proj.weight": (256, 256)}
    layer |= {"mlp.w1.weight": (256, 256), "mlp.w2.weight": (256, 256)}
    block = {"attn.in_proj.weight": (144, 48), "attn.in_proj.bias": (144,), "attn.out_proj.weight": (48, 48), "attn.out_proj.bias": (48,)}
    block |= {f"ln_{number}.{kind}": (48,) for number in (1, 2) for kind in ("weight", "bias")}
    block |= {"mlp.c_fc.weight": (96, 48), "mlp.c_fc.bias": (96,), "mlp.c_proj.weight": (48, 96), "mlp.c_proj.bias": (48,)}
    pool = {"query": (256, 256), "kv_proj.weight": (256, 48), "attn.in_proj_weight": (768, 256), "attn.in_proj_bias": (768,)}
    pool |= {"attn.out_proj.weight": (256, 256), "attn.out_proj.bias": (256,)}
    pool |= {f"{norm}.{kind}": (256,) for norm in ("ln_q", "ln_kv") for kind in ("weight", "bias")}
    found: dict[str, tuple[int, ...]] = {
        "lm_head.weight": (512, 256),
        "transformer.wte.weight": (512, 256),
        "transformer.ln_f.weight": (256,),
    }
    found |= {f"transformer.h.{number}.{name}": shape for number in range(2) for name, shape in layer.items()}
    found |= {f"{visual}transformer.resblocks.{number}.{name}": shape for number in range(2) for name, shape in block.items()}
    found |= {f"{visual}attn_pool.{name}": shape for name, shape in pool.items()}
    found |= {f"{visual}ln_pre.{kind}": (48,) for kind in ("weight", "bias")}
    found |= {f"{visual}ln_post.{kind}": (256,) for kind in ("weight", "bias")}
    found |= {f"{visual}conv1.weight": (48, 3, 14, 14), f"{visual}positional_embedding": (256, 48), f"{visual}proj": (256, 256)}
    return found


def weights() -> dict[str, Tensor]:
    """Drawn by a generator whose numbers numpy never changes, in the order of names: matrices ~N(0, 0.1), biases ~N(0, 0.15), norms
    ~N(1, 0.1)."""
    chance = np.random.RandomState(0)
    found = {}
    for name, shape in sorted(shapes().items()):
        noise = chance.standard_normal(shape).astype(np.float32)
        norm = ".ln_" in name and name.endswith("weight")
        found[name] = torch.from_numpy(1 + 0.1 * noise if norm else (0.15 if noise.ndim == 1 else 0.1) * noise).float()
    return found


def picture(seed: int) -> NDArray[np.uint8]:
    return np.random.RandomState(seed).randint(0, 256, (56, 56, 3)).astype(np.uint8)


def write(directory: Path, form: str = "chatml", **changes: Any) -> Path:
    """The directory, without weights."""
    directory.mkdir(exist_ok=True)
    (directory / "config.json").write_text(json.dumps(CONFIG | changes))
    (directory / "generation_config.json").write_text(json.dumps({"chat_format": form, "do_sample": True, "top_p": 0.3, "top_k": 0}))
    (directory / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "QWenTokenizer", "model_max_length": 8192}))
    (directory / "qwen.tiktoken").write_text(RANKS)
    return directory
