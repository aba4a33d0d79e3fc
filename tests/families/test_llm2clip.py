"""LLM2CLIP's towers: EVA02 beside what upstream's own class made of the same weights, and all else LLaVA-1.5's."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from families.system import patchify
from torch import Tensor

import vlmkit
from tests.tiny import apart
from vlmkit.encoders.timm import Timm
from vlmkit.features import Grid
from vlmkit.spec import SpecError

TINY = vlmkit.architecture("llm2clip-tiny").encoder
KEPT = json.loads(Path(__file__).with_name("eva02_upstream.json").read_text(encoding="utf-8"))
BLOCK = {
    **{f"attn.{name}.weight": (32, 32) for name in ("q_proj", "k_proj", "v_proj", "proj")},
    **{f"attn.{name}.bias": (32,) for name in ("q_proj", "v_proj", "proj")},
    **{f"{name}.{kind}": (32,) for name in ("norm1", "norm2", "attn.inner_attn_ln") for kind in ("weight", "bias")},
    **{f"mlp.ffn_ln.{kind}": (85,) for kind in ("weight", "bias")},
    **{f"mlp.{name}.weight": (85, 32) for name in ("w1", "w2")},
    **{f"mlp.{name}.bias": (85,) for name in ("w1", "w2")},
    "mlp.w3.weight": (32, 85),
    "mlp.w3.bias": (32,),
}
SHAPES = {
    **{f"blocks.{number}.{name}": shape for number in range(3) for name, shape in BLOCK.items()},
    "cls_token": (1, 1, 32),
    "pos_embed": (1, 17, 32),
    "patch_embed.proj.weight": (32, 3, 14, 14),
    "patch_embed.proj.bias": (32,),
    "norm.weight": (32,),
    "norm.bias": (32,),
    "head.weight": (8, 32),
    "head.bias": (8,),
}
"""Names and shapes of EVAVisionTransformer's weights at the sizes of the kept file."""


def weights() -> dict[str, Tensor]:
    """In the order of names ~N(0, 0.15), norms ~N(1, 0.1), by a generator whose numbers numpy never changes."""
    chance = np.random.RandomState(0)
    found = {}
    for name, shape in sorted(SHAPES.items()):
        noise = chance.standard_normal(shape).astype(np.float32)
        norm = ("norm" in name or "_ln" in name) and name.endswith("weight")
        found[f"visual.{name}"] = torch.from_numpy(1 + 0.1 * noise if norm else 0.15 * noise).float()
    return found


def test_a_file_of_eva_clip_gives_upstreams_features(tmp_path: Path) -> None:
    """Measured 5e-6, the digits that were kept, of size 14. Each of the rotary positions, the norms within and SwiGLU would show."""
    torch.save(weights(), tmp_path / "eva.pt")
    assert isinstance(TINY, Timm)
    spec = TINY.replace(checkpoint=str(tmp_path / "eva.pt"))
    tower = spec.build().eval()
    spec.load_pretrained(tower)
    image = torch.from_numpy(np.random.RandomState(1).standard_normal((3, 56, 56)).astype(np.float32))
    with torch.no_grad():
        found = tower(patchify(image, 14), (Grid(1, 4, 4),)).tokens
    assert apart(found, torch.tensor(KEPT["features"])) < 1e-4


def test_a_file_that_lacks_a_weight_is_refused(tmp_path: Path) -> None:
    lacking = weights()
    del lacking["visual.blocks.1.mlp.w2.bias"]
    torch.save(lacking, tmp_path / "eva.pt")
    spec = TINY.replace(checkpoint=str(tmp_path / "eva.pt"))
    with pytest.raises(SpecError, match=r"missing blocks\.1\.mlp\.fc1_x\.bias"):
        spec.load_pretrained(spec.build())


def test_all_but_the_tower_is_llava_1_5() -> None:
    llava = vlmkit.architecture("llava-1.5-7b")
    for name in ("llm2clip-openai-l-336-7b", "llm2clip-eva02-l-336-7b"):
        assert vlmkit.architecture(name).replace(name=llava.name, encoder=llava.encoder) == llava
    openai = vlmkit.architecture("llm2clip-openai-l-336-7b").encoder
    assert openai.replace(checkpoint=None) == llava.encoder.replace(checkpoint=None)


def test_the_numbers_are_timms() -> None:
    encoder = vlmkit.architecture("llm2clip-eva02-l-336-7b").encoder
    assert encoder == Timm(model="eva02_large_patch14_clip_336", layer=-2, final_norm=False)
