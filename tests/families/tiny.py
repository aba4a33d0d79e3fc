"""Tiny references: small configs, drawn weights, smooth pictures."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from PIL import Image
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedModel, PreTrainedTokenizerBase

LANGUAGE: dict[str, Any] = dict(
    hidden_size=32,
    intermediate_size=64,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=2048,
    vocab_size=320,
    pad_token_id=256,
    bos_token_id=264,
    eos_token_id=265,
)
"""Numbers of a tiny language model, under transformers' names."""

VISION: dict[str, Any] = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)


def beginning(tokenizer: PreTrainedTokenizerBase) -> PreTrainedTokenizerBase:
    """The tokenizer with its first token put before every text, as most published ones do."""
    bos = str(tokenizer.bos_token)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single=f"{bos} $A", special_tokens=[(bos, tokenizer.bos_token_id)])
    return tokenizer


def draw(model: PreTrainedModel, seed: int = 0) -> PreTrainedModel:
    """Weights ~N(0, 0.15), norms ~N(1, 0.1): at initialisation many references would ignore their image."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        norm = "norm" in name.lower() and parameter.ndim == 1
        parameter.data.normal_(1.0 if norm else 0.0, 0.1 if norm else 0.15, generator=generator)
    return model.eval()


def picture(height: int, width: int, seed: int = 0) -> Image.Image:
    """A smooth random picture: resampling filters of two libraries agree on it as they do on photographs."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
