"""ARIA beside AriaForConditionalGeneration."""

from __future__ import annotations

import torch
import transformers
from families.system import Reference, System, chat, patchify
from families.tiny import LANGUAGE, VISION, draw
from torch import Tensor

from vlmkit.architecture import Parameters
from vlmkit.encoders.base import Encoder
from vlmkit.tokenizer import bytes_tokenizer

TEMPLATE = (
    "{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for item in message['content'] %}"
    "{% if item['type'] == 'text' %}{{ item['text'] }}{% elif item['type'] == 'image' %}<fim_prefix><|img|><fim_suffix>{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""What the published template asks."""


def patches(inputs: dict[str, Tensor], encoder: Encoder) -> Tensor:
    """Of squares (V, 3, H, W) with their masks (V, H, W): patches that hold a pixel of the image, which are those up to its last row and
    column."""
    side, found = encoder.patch_size, []
    for view, mask in zip(inputs["pixel_values"], inputs["pixel_mask"].bool(), strict=True):
        rows, columns = (-(-int(line.sum()) // side) * side for line in (mask[:, 0], mask[0]))
        found.append(patchify(view[:, :rows, :columns], side))
    return torch.cat(found)


def reference() -> Reference:
    config = transformers.AriaConfig(
        vision_config={**VISION, "model_type": "idefics3_vision", "image_size": 686, "patch_size": 98},
        text_config=LANGUAGE | dict(moe_num_experts=4, moe_topk=2, moe_num_shared_experts=2, bos_token_id=None, eos_token_id=259),
        projector_patch_to_query_dict={25: 2, 100: 4},
        image_token_index=263,
    )
    tokenizer = bytes_tokenizer(
        ["<|img|>", "<fim_prefix>", "<fim_suffix>"], eos_token="<|im_end|>", extra_special_tokens={"image_token": "<|img|>"}
    )
    processor = transformers.AriaProcessor(
        transformers.AriaImageProcessor(), tokenizer, chat_template=TEMPLATE, size_conversion={490: 2, 980: 4}
    )
    return Reference(draw(transformers.AriaForConditionalGeneration(config)), processor, chat, patches)


SYSTEMS = (
    System(
        title="ARIA",
        counts={"aria-25b": Parameters(417_792_240, 20_427_136, 0, 24_869_091_840)},
        tiny="aria-tiny",
        reference=reference,
    ),
)
