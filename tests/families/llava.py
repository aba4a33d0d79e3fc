"""LLaVA-1.5 and BakLLaVA beside LlavaForConditionalGeneration, with transformers' own processor."""

from __future__ import annotations

from typing import Any

import transformers
from families.system import Conversation, Reference, System, dense_patches, images_of
from families.tiny import LANGUAGE, VISION, draw
from torch import Tensor

from vlmkit.architecture import Parameters
from vlmkit.tokenizer import bytes_tokenizer


def inputs(processor: Any, conversation: Conversation) -> dict[str, Tensor]:
    """As llava-hf's model card prompts: USER: <image>\\n... ASSISTANT:"""
    text = "<s>"
    for message in conversation:
        words = "".join("<image>\n" if item["type"] == "image" else item["text"] for item in message["content"])
        text += f"{message['role'].upper()}: {words}{'</s>' if message['role'] == 'assistant' else ' '}"
    found = processor(images=images_of(conversation) or None, text=text + "ASSISTANT:", return_tensors="pt", add_special_tokens=False)
    return {name: value for name, value in found.items() if name != "mm_token_type_ids"}


def reference(text: Any, **image: Any) -> Reference:
    vision = transformers.CLIPVisionConfig(**VISION, image_size=28, patch_size=14)
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=263, vision_feature_layer=-2)
    roles = {"bos_token": "<s>", "eos_token": "</s>", "extra_special_tokens": {"image_token": "<image>"}}
    tokenizer = bytes_tokenizer(["<image>", "<s>", "</s>"], **roles)
    square = {"height": 28, "width": 28}
    processor = transformers.LlavaProcessor(
        image_processor=transformers.LlavaImageProcessor(size={"shortest_edge": 28}, crop_size=square, **image),
        tokenizer=tokenizer,
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return Reference(draw(transformers.LlavaForConditionalGeneration(config)), processor, inputs, dense_patches())


SYSTEMS = (
    System(
        title="LLaVA-1.5",
        counts={
            "llava-1.5-7b": Parameters(303_507_456, 20_979_712, 0, 6_738_939_904),
            "llava-1.5-13b": Parameters(303_507_456, 31_467_520, 0, 13_016_519_680),
        },
        tiny="llava-1.5-tiny",
        reference=lambda: reference(transformers.LlamaConfig(**LANGUAGE), do_pad=True),
        servable=lambda size: size.aspect_ratio <= 20,
    ),
    System(
        title="BakLLaVA",
        counts={"bakllava-7b": Parameters(303_507_456, 20_979_712, 0, 7_242_256_384)},
        tiny="bakllava-tiny",
        reference=lambda: reference(transformers.MistralConfig(**LANGUAGE, sliding_window=None), do_pad=True),
        servable=lambda size: size.aspect_ratio <= 20,
    ),
)
