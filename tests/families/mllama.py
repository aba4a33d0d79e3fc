"""Llama 3.2-Vision beside MllamaForConditionalGeneration, and LLaVA-CoT, which is its weights trained further."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import transformers
from families.system import Reference, System, chat, patchify
from families.tiny import LANGUAGE, VISION, draw
from torch import Tensor

from vlmkit.architecture import Parameters
from vlmkit.encoders.base import Encoder
from vlmkit.tokenizer import bytes_tokenizer

TEMPLATE = (
    "{{- bos_token }}{% for message in messages %}{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}"
    "{%- if message['content'] is string %}{{- message['content'] }}{%- else %}{%- for content in message['content'] %}"
    "{%- if content['type'] == 'image' %}{{- '<|image|>' }}{%- elif content['type'] == 'text' %}{{- content['text'] }}{%- endif %}"
    "{%- endfor %}{%- endif %}{{- '<|eot_id|>' }}{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}"
)
"""The published one, without tools and the system message that it begins conversations without images with."""
SPECIALS = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
"""From id 263 on; the byte-level tokenizer has <|image|> by itself, as 260."""


def patches(inputs: dict[str, Tensor], encoder: Encoder) -> Tensor:
    """Of tiles (1, I, tiles, 3, H, W): those of which the mask (1, I, tiles) says that they hold something."""
    tiles, held = inputs["pixel_values"].flatten(0, 2), inputs["aspect_ratio_mask"].flatten().bool()
    return torch.cat([patchify(tile, encoder.patch_size) for tile in tiles[held]])


def reference() -> Reference:
    vision: dict[str, Any] = {**VISION, "num_hidden_layers": 4, "num_global_layers": 2, "image_size": 56, "patch_size": 14}
    config = transformers.MllamaConfig(
        vision_config={**vision, "intermediate_layers_indices": [0, 2], "vision_output_dim": 96},
        text_config={
            **LANGUAGE,
            "num_hidden_layers": 5,
            "cross_attention_layers": [1, 3],
            "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
            "bos_token_id": 263,
            "eos_token_id": 266,
        },
        image_token_index=260,
    )
    images = transformers.MllamaImageProcessor(
        size={"height": 56, "width": 56}, image_mean=[0.48145466, 0.4578275, 0.40821073], image_std=[0.26862954, 0.26130258, 0.27577711]
    )
    tokenizer = bytes_tokenizer(SPECIALS, bos_token="<|begin_of_text|>", eos_token="<|eot_id|>")
    processor = transformers.MllamaProcessor(images, tokenizer, chat_template=TEMPLATE)
    return Reference(draw(transformers.MllamaForConditionalGeneration(config)), processor, chat, patches)


LLAMA_VISION = System(
    title="Llama 3.2-Vision",
    counts={
        "llama-3.2-11b-vision": Parameters(863_567_379, 31_461_376, 1_744_898_064, 8_030_294_016),
        "llama-3.2-90b-vision": Parameters(863_567_379, 62_922_752, 17_113_093_160, 70_553_772_032),
    },
    tiny="llama-3.2-vision-tiny",
    reference=reference,
)

SYSTEMS = (
    LLAMA_VISION,
    replace(
        LLAMA_VISION,
        title="LLaVA-CoT",
        counts={"llava-cot-11b": Parameters(863_567_379, 31_461_376, 1_744_898_064, 8_030_294_016)},
    ),
)
"""LLaVA-CoT is the first one's parts with other weights."""
