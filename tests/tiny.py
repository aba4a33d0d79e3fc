"""A small spec of every registered part, models made of them, and things to ask them about.

A part that has no entry here is made with its own defaults; where those do not exist the walk over the catalogue fails
and says so.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import vlmkit
from vlmkit.architecture import Architecture
from vlmkit.language_model import LanguageModel
from vlmkit.layout.template import CHATML
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor
from vlmkit.registry import Registry
from vlmkit.spec import Settings

_VIT: dict[str, Any] = {"width": 32, "layers": 2, "heads": 2, "patch": 14, "image_size": 42}
_HF: dict[str, Any] = {**_VIT, "mlp": 64, "positions": "bicubic_antialias"}

ENCODERS: dict[str, dict[str, Any]] = {
    "aimv2": _HF,
    "mllama": {**_VIT, "mlp": 64, "image_size": 56, "global_layers": 1, "selected": (1,)},
    "open_clip": _VIT,
    "clip": _HF,
    "intern_vit": _HF,
    "siglip": _HF,
    "siglip2": _HF,
    "siglip_rotary": {"width": 32, "layers": 2, "heads": 2, "patch": 14, "mlp": 64},
    "timm": {**_VIT, "custom": True},
    "patches": {"patch": 14},
    "pixtral": {"width": 32, "layers": 2, "heads": 2, "patch": 14, "mlp": 64},
    "qwen2_vl": {"width": 32, "layers": 2, "heads": 2, "patch": 14, "mlp": 64},
}
CONNECTORS: dict[str, dict[str, Any]] = {
    "attention_pool": {"heads": 2},
    "flamingo_resampler": {"latents": 4, "depth": 2, "heads": 2, "head_dim": 8},
    "perceiver": {"latents": 4, "depth": 2, "heads": 2, "kv_heads": 1, "head_dim": 8},
    "query_attention": {"queries": ((3, 2), (6, 4)), "heads": 2},
    "resampler": {"side": 2, "heads": 2},
}
POLICIES: dict[str, dict[str, Any]] = {
    "anyres": {"size": 56},
    "canvas_tiles": {"size": 56},
    "center_crop": {"size": 56},
    "edge_bounds": {"shortest": 56, "longest": 112, "factor": 28},
    "edge_cap": {"longest": 112, "factor": 28},
    "edge_fit": {"longest": 84, "shortest": 30, "factor": 28},
    "fit_canvas": {"height": 56, "width": 84, "factor": 28},
    "letterbox": {"size": 56},
    "longest_edge_tiles": {"size": 56, "tiles": 2},
    "multicrop": {"size": 84, "margin": 28, "crops": 4},
    "pad_square": {"size": 56},
    "resize_crop": {"factor": 28, "resize": (56, 60)},
    "smart_resize": {"min_pixels": 4 * 28 * 28, "max_pixels": 8 * 28 * 28},
    "squash": {"size": 56},
    "tiles": {"size": 56, "most": 3},
}
LAYOUTS: dict[str, dict[str, Any]] = {
    "bracketed": {"template": CHATML, "placeholder": "<|image|>", "start": "<|image_start|>", "end": "<|image_end|>"},
    "bracketed_lines": {"template": CHATML, "placeholder": "<|image|>", "start": "<|image_start|>", "end": "<|image_end|>"},
    "fenced": {"template": CHATML, "placeholder": "<|image|>", "boundary": "<|image_start|>"},
    "images_first": {"template": CHATML, "placeholder": "<|image|>"},
    "numbered_tiles": {"template": CHATML, "placeholder": "<|image|>"},
    "opening": {"template": CHATML, "placeholder": "<|image|>"},
    "rows": {"template": CHATML, "placeholder": "<|image|>", "row_end": "<|image_start|>", "image_end": "<|image_end|>"},
    "rows_first": {"template": CHATML, "placeholder": "<|image|>", "row_end": "<|image_start|>"},
    "run": {"template": CHATML, "placeholder": "<|image|>", "after_image": "\n"},
    "seen": {"template": CHATML, "placeholder": "<|image|>"},
    "seen_fenced": {"template": CHATML, "placeholder": "<|image|>", "boundary": "<|image_start|>"},
    "seen_tiles": {"template": CHATML, "placeholder": "<|image|>"},
    "seen_tiles_beside": {"template": CHATML, "placeholder": "<|image|>"},
    "stitched_rows": {
        "template": CHATML,
        "placeholder": "<|image|>",
        "start": "<|image_start|>",
        "end": "<|image_end|>",
        "row_end": "<|image_start|>",
    },
    "tile_tags": {"template": CHATML, "placeholder": "<|image|>", "boundary": "<|image_start|>"},
    "timestamps": {"template": CHATML, "placeholder": "<|image|>"},
    "unpadded_rows": {"template": CHATML, "placeholder": "<|image|>"},
}
DECODER: dict[str, Any] = {
    "vocab_size": 264,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
    "pad_token_id": 256,
    "bos_token_id": None,
    "eos_token_id": [257, 259],
}
"""Numbers that every small language model shares."""
_YARN = {"rope_type": "yarn", "factor": 8.0, "original_max_position_embeddings": 64, "beta_fast": 32.0, "beta_slow": 1.0}
_THREE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]}
LANGUAGE_MODELS: dict[str, dict[str, Any]] = {
    "olmo3": {**DECODER, "num_hidden_layers": 4, "sliding_window": 8, "rope_theta": 10000.0, "rope_scaling": _YARN},
    "llama": {**DECODER, "tie_word_embeddings": True},
    "qwen2": {**DECODER, "tie_word_embeddings": True},
    "gemma": {**DECODER, "head_dim": 8},
    "gemma2": {**DECODER, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 8},
    "qwen2_vl_text": {**DECODER, "tie_word_embeddings": True, "rope_parameters": _THREE},
}
"""Olmo3 and Gemma 2 slide over fewer tokens than any row holds. All but Olmo3 tie their embeddings. Qwen2-VL's turns by time, row and
column."""

_TABLES = {"encoder": ENCODERS, "connector": CONNECTORS, "policy": POLICIES, "layout": LAYOUTS}


def part(registry: Registry[Any], kind: str, **changes: Any) -> Any:
    """The small spec of a registered part."""
    try:
        return registry[kind](**(_TABLES.get(registry.family, {}).get(kind, {}) | changes))
    except TypeError as error:
        raise AssertionError(f"tests/tiny.py has no {registry.family} {kind!r}, and it has no defaults: {error}") from None


def language_model(name: str, **changes: Any) -> LanguageModel:
    return LanguageModel(model_type=name, tokenizer="bytes", config=Settings(LANGUAGE_MODELS[name] | changes))


def architecture(
    *,
    policy: Any = "smart_resize",
    encoder: Any = "open_clip",
    connector: Any = "conv_patch_merger",
    layout: Any = "run",
    fusion: Any = "splice",
    language: Any = "olmo3",
) -> Architecture:
    """Small parts by their names, or specs."""

    def made(registry: Registry[Any], value: Any) -> Any:
        return part(registry, value) if isinstance(value, str) else value

    return Architecture(
        name="small",
        policy=made(vlmkit.policies, policy),
        encoder=made(vlmkit.encoders, encoder),
        connector=made(vlmkit.connectors, connector),
        layout=made(vlmkit.layouts, layout),
        fusion=made(vlmkit.fusions, fusion),
        language_model=language_model(language) if isinstance(language, str) else language,
    )


def draw(module: nn.Module, seed: int = 0, scale: float = 0.15) -> None:
    """Weights ~N(0, scale), norms ~N(1, 0.1): nothing is zero, nothing is one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_norm = parameter.ndim == 1 and ("norm" in name or "ln_" in name) and name.endswith("weight")
            parameter.copy_(1 + 0.1 * noise if is_norm else scale * noise)


def model(arch: Architecture | None = None, seed: int = 0) -> VLM:
    """A model with weights that show every mistake."""
    built = vlmkit.build(arch or architecture(), seed=seed)
    draw(built, seed)
    return built


@functools.cache
def shared() -> tuple[VLM, VLMProcessor]:
    """The small model that most tests look at and none changes, and its processor."""
    arch = architecture()
    return model(arch), vlmkit.build_processor(arch)


def picture(height: int = 56, width: int = 84, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def user(*content: Any) -> dict[str, Any]:
    """A user's message of texts and images."""
    return {
        "role": "user",
        "content": [{"type": "text", "text": item} if isinstance(item, str) else {"type": "image", "image": item} for item in content],
    }


def assistant(text: str) -> dict[str, Any]:
    return {"role": "assistant", "content": text}


CONVERSATIONS: list[list[dict[str, Any]]] = [
    [user(picture(seed=1), "What is it?"), assistant("A cat.")],
    [user("No picture here, only a few words?"), assistant("Yes, only words.")],
    [{"role": "system", "content": "Be brief."}, user(picture(60, 60, 2), "and", picture(30, 90, 3), "differ?"), assistant("Yes.")],
    [user("one ", picture(90, 40, 4)), assistant("1"), user("two", picture(seed=5)), assistant("2")],
]
"""Images: one, none, two in one message, two in two turns. Every one ends with an answer."""
PROMPTS = [conversation[:-1] for conversation in CONVERSATIONS]


def apart(first: Tensor, second: Tensor) -> float:
    """The largest difference."""
    return float((first.detach().float() - second.detach().float()).abs().max())


def encoded_views(built: VLM) -> list[int]:
    """A list that grows by the number of views each time the encoder is called."""
    seen: list[int] = []
    built.encoder.register_forward_hook(lambda module, inputs, features: seen.append(len(features.grids)))
    return seen
