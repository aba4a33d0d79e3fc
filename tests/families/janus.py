"""Janus-Pro beside JanusForConditionalGeneration, with transformers' own processor; its generation side is as small as it goes."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from families.system import Conversation, Reference, System, dense_patches, images_of
from families.tiny import LANGUAGE, beginning, draw
from torch import Tensor

from vlmkit.architecture import Parameters
from vlmkit.tokenizer import bytes_tokenizer

BEGIN, END = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>"  # noqa: RUF001 - the bars of these tokens are wide ones
CHAT = (
    "{% for message in messages %}{{ {'system': '', 'user': '<|User|>: ', 'assistant': '<|Assistant|>: '}[message.role] }}"
    "{% for item in message.content %}{% if item.type == 'image' %}"
    "{{ '' if loop.first else '\n' }}<image_placeholder>{{ '' if loop.last else '\n' }}"
    "{% else %}{{ item.text }}{% endif %}{% endfor %}"
    "{{ '\n\n' if message.role != 'assistant' else '" + END + "' }}{% endfor %}{% if add_generation_prompt %}<|Assistant|>:{% endif %}"
)
"""What the published template asks, without its care for spaces around words."""
DRAWING = dict(
    embed_dim=8, num_embeddings=16, latent_channels=32, base_channels=32, channel_multiplier=[1, 1], num_res_blocks=1,
    image_token_embed_dim=32, projection_dim=32, num_hidden_layers=1,
)  # fmt: skip
UNREAD = ("model.vqmodel.", "model.generation_embeddings.", "model.generation_aligner.", "model.generation_head.")


def inputs(processor: Any, conversation: Conversation) -> dict[str, Tensor]:
    """The published tokenizer puts its first token before the default system message that the processor writes."""
    text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    found = processor(text=text, images=images_of(conversation) or None, return_tensors="pt", add_special_tokens=False)
    begin = torch.tensor([[processor.tokenizer.bos_token_id]])
    ids = torch.cat([begin, found["input_ids"]], dim=1)
    found = {name: value for name, value in found.items() if name != "mm_token_type_ids"}
    return found | {"input_ids": ids, "attention_mask": torch.ones_like(ids)}


def reference() -> Reference:
    vision = transformers.JanusVisionConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=4, mlp_ratio=2, image_size=28, patch_size=14, projection_dim=32
    )
    config = transformers.JanusConfig(
        vision_config=vision,
        text_config=transformers.LlamaConfig(**LANGUAGE | {"eos_token_id": 267}),
        vq_config=transformers.JanusVQVAEConfig(**DRAWING),
        image_token_id=263,
        tie_word_embeddings=False,
    )
    named = {"image_token": "<image_placeholder>", "boi_token": "<begin_of_image>", "eoi_token": "<end_of_image>"}
    specials = ["<image_placeholder>", BEGIN, "<|User|>", "<|Assistant|>", END, "<begin_of_image>", "<end_of_image>"]
    tokenizer = beginning(bytes_tokenizer(specials, bos_token=BEGIN, eos_token=END, extra_special_tokens=named))
    images = transformers.JanusImageProcessor(size={"height": 28, "width": 28}, image_mean=[0.5] * 3, image_std=[0.5] * 3)
    processor = transformers.JanusProcessor(images, tokenizer, chat_template=CHAT, use_default_system_prompt=True, num_image_tokens=4)
    return Reference(draw(transformers.JanusForConditionalGeneration(config)), processor, inputs, dense_patches())


SYSTEMS = (
    System(
        title="Janus-Pro",
        counts={
            "janus-pro-1b": Parameters(303_688_704, 6_295_552, 0, 1_652_656_128),
            "janus-pro-7b": Parameters(303_688_704, 20_979_712, 0, 6_910_365_696),
        },
        tiny="janus-tiny",
        reference=reference,
        unread=UNREAD,
        compared_with="the understanding side of JanusForConditionalGeneration: what draws images is not built",
    ),
)
