"""Maya beside LlavaForConditionalGeneration over SigLIP and Cohere: the published model is LLaVA's code over these two."""

from __future__ import annotations

import functools
from typing import Any

import transformers
from families.system import Reference, System, chat, dense_patches
from families.tiny import LANGUAGE, VISION, beginning, draw

from vlmkit.architecture import Parameters
from vlmkit.checkpoints.decoder import OWN_HEAD
from vlmkit.tokenizer import bytes_tokenizer

TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "<|START_OF_TURN_TOKEN|>"
    "{{ {'system': '<|SYSTEM_TOKEN|>', 'user': '<|USER_TOKEN|>', 'assistant': '<|CHATBOT_TOKEN|>'}[message.role] }}"
    "{% for item in message.content %}{{ '<|EXTRA_0_TOKEN|>\n' if item.type == 'image' else item.text }}{% endfor %}"
    "<|END_OF_TURN_TOKEN|>{% endfor %}{% if add_generation_prompt %}<|START_OF_TURN_TOKEN|><|CHATBOT_TOKEN|>{% endif %}"
)
"""As Aya-23's tokenizer asks, with LLaVA's line break after the image."""
SPECIALS = ("<BOS_TOKEN>", "<|START_OF_TURN_TOKEN|>", "<|SYSTEM_TOKEN|>", "<|END_OF_TURN_TOKEN|>", "<|USER_TOKEN|>", "<|CHATBOT_TOKEN|>")


class LlavaCohere(transformers.LlavaForConditionalGeneration):
    """With the scale of logits that is part of Cohere and of Maya's own class, and that LlavaForConditionalGeneration leaves out."""

    @functools.wraps(transformers.LlavaForConditionalGeneration.forward)
    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = output.logits * self.config.text_config.logit_scale
        return output


def reference() -> Reference:
    vision = transformers.SiglipVisionConfig(**VISION, image_size=28, patch_size=14, vision_use_head=False)
    text = transformers.CohereConfig(**LANGUAGE | {"eos_token_id": 267})
    config = transformers.LlavaConfig(vision_config=vision, text_config=text, image_token_index=263, vision_feature_layer=-2)
    setattr(config, OWN_HEAD, True)  # as vlmkit exports Maya
    roles = {"bos_token": "<BOS_TOKEN>", "eos_token": "<|END_OF_TURN_TOKEN|>", "extra_special_tokens": {"image_token": "<|EXTRA_0_TOKEN|>"}}
    processor = transformers.LlavaProcessor(
        image_processor=transformers.SiglipImageProcessor(size={"height": 28, "width": 28}, resample=3),
        tokenizer=beginning(bytes_tokenizer(["<|EXTRA_0_TOKEN|>", *SPECIALS], **roles)),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=0,
        chat_template=TEMPLATE,
    )
    return Reference(draw(LlavaCohere(config)), processor, chat, dense_patches())


SYSTEMS = (
    System(
        title="Maya",
        counts={"maya-8b": Parameters(85_843_200, 19_931_136, 0, 8_028_033_024)},
        tiny="maya-tiny",
        reference=reference,
        compared_with="LlavaForConditionalGeneration(SigLIP, Cohere) with Cohere's scale of logits: transformers has no Maya",
    ),
)
