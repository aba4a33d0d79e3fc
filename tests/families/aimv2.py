"""AIMv2 under Llama 3 beside LlavaForConditionalGeneration over transformers' Aimv2VisionModel."""

from __future__ import annotations

import transformers
from families.system import Reference, System, chat, dense_patches
from families.tiny import LANGUAGE, VISION, draw

from vlmkit.architecture import Parameters
from vlmkit.tokenizer import bytes_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message.role }}<|end_header_id|>\n\n"
    "{% for item in message.content %}{{ '<|reserved_special_token_0|>\n' if item.type == 'image' else item.text }}{% endfor %}"
    "<|eot_id|>{% endfor %}{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
)
"""As Llama 3's tokenizer asks, with LLaVA's line break after the image."""
IMAGE = "<|reserved_special_token_0|>"
SPECIALS = (IMAGE, "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def reference() -> Reference:
    vision = transformers.Aimv2VisionConfig(**VISION, image_size=28, patch_size=14, use_head=False)
    config = transformers.LlavaConfig(
        vision_config=vision,
        text_config=transformers.LlamaConfig(**LANGUAGE | {"eos_token_id": 267}),
        image_token_index=263,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )
    roles = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "extra_special_tokens": {"image_token": IMAGE}}
    square = {"height": 28, "width": 28}
    processor = transformers.LlavaProcessor(
        image_processor=transformers.LlavaImageProcessor(size={"shortest_edge": 28}, crop_size=square, do_pad=True),
        tokenizer=bytes_tokenizer(SPECIALS, **roles),
        patch_size=14,
        vision_feature_select_strategy="full",
        num_additional_image_tokens=0,
        chat_template=TEMPLATE,
    )
    return Reference(draw(transformers.LlavaForConditionalGeneration(config)), processor, chat, dense_patches())


SYSTEMS = (
    System(
        title="AIMv2",
        counts={"aimv2-llama-3-8b": Parameters(309_525_504, 20_979_712, 0, 8_030_261_248)},
        tiny="aimv2-tiny",
        reference=reference,
        servable=lambda size: size.aspect_ratio <= 20,
        compared_with="LlavaForConditionalGeneration(AIMv2, Llama), both transformers' own: the paper published no such weights",
    ),
)
