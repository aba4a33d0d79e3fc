"""Pixtral beside LlavaForConditionalGeneration over PixtralVisionModel and Mistral, with PixtralProcessor."""

from __future__ import annotations

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
    "{{ bos_token }}{% for message in messages %}{% if message.role == 'user' %}[INST]{% for item in message.content %}"
    "{{ '[IMG]' if item.type == 'image' else item.text }}{% endfor %}[/INST]"
    "{% elif message.role == 'system' %}{{ message.content + '\n\n' }}{% else %}{{ message.content }}{{ eos_token }}{% endif %}{% endfor %}"
)
"""As Mistral's tokenizer asks."""
SPECIALS = ("[IMG]", "<s>", "</s>", "[IMG_BREAK]", "[IMG_END]", "[INST]", "[/INST]")


def patches(inputs: dict[str, Tensor], encoder: Encoder) -> Tensor:
    """Of images (V, 3, H, W) that are padded below and on the right to the largest."""
    views = zip(inputs["pixel_values"], inputs["image_sizes"].tolist(), strict=True)
    return torch.cat([patchify(view[:, :height, :width], encoder.patch_size) for view, (height, width) in views])


def reference() -> Reference:
    vision = transformers.PixtralVisionConfig(**VISION, hidden_act="silu", image_size=112, patch_size=16)
    text: Any = transformers.MistralConfig(**LANGUAGE, head_dim=16, sliding_window=None, rope_theta=1e9)
    config = transformers.LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=263, vision_feature_layer=-1, vision_feature_select_strategy="full"
    )
    roles = {"bos_token": "<s>", "eos_token": "</s>", "extra_special_tokens": {"image_token": "[IMG]"}}
    processor = transformers.PixtralProcessor(
        image_processor=transformers.PixtralImageProcessor(size={"longest_edge": 112}),
        tokenizer=bytes_tokenizer(SPECIALS, **roles),
        chat_template=TEMPLATE,
    )
    return Reference(draw(transformers.LlavaForConditionalGeneration(config)), processor, chat, patches)


SYSTEMS = (
    System(
        title="Pixtral",
        counts={"pixtral-12b": Parameters(403_489_792, 31_467_520, 0, 12_247_782_400)},
        tiny="pixtral-tiny",
        reference=reference,
        servable=lambda size: size.aspect_ratio <= 112,
    ),
)
