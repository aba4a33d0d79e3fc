"""Qwen2-VL beside Qwen2VLForConditionalGeneration, with transformers' own processor; UI-TARS and Tarsier2 have its class."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
import transformers
from einops import rearrange
from families.system import Reference, System
from families.tiny import LANGUAGE, draw
from torch import Tensor

from vlmkit.architecture import Parameters
from vlmkit.encoders.base import Encoder
from vlmkit.tokenizer import bytes_tokenizer

TEMPLATE = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As Qwen2-VL's published processors write turns, from memory."""
SPECIALS = ("<|image_pad|>", "<|video_pad|>", "<|vision_start|>", "<|vision_end|>")
PIXELS = {"shortest_edge": 4 * 28 * 28, "longest_edge": 16 * 28 * 28}


def patches(inputs: dict[str, Tensor], encoder: Encoder, merge: int = 2) -> Tensor:
    """The published order goes by the blocks, 2x2 each, that are merged later; vlmkit's by rows."""
    views = []
    for (frames, rows, columns), piece in zip(
        inputs["image_grid_thw"].tolist(), inputs["pixel_values"].split(inputs["image_grid_thw"].prod(dim=1).tolist()), strict=True
    ):
        blocks = {"f": frames, "h": rows // merge, "w": columns // merge, "dh": merge, "dw": merge}
        views.append(rearrange(piece, "(f h w dh dw) c -> (f h dh w dw) c", **blocks))
    return torch.cat(views)


def inputs(processor: Any, conversation: Any) -> dict[str, Tensor]:
    """With the types of tokens, by which the reference finds positions."""
    text = processor.apply_chat_template(conversation, add_generation_prompt=True, tokenize=False)
    images = [item["image"] for message in conversation for item in message["content"] if item["type"] == "image"]
    return dict(processor(images=images or None, text=text, return_tensors="pt"))


def reference() -> Reference:
    text: Any = LANGUAGE | {
        "bos_token_id": 257,
        "eos_token_id": 259,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [1, 1, 2]},
    }
    vision = {"embed_dim": 32, "depth": 3, "num_heads": 4, "mlp_ratio": 2, "hidden_size": 32, "patch_size": 14}
    tokenizer = bytes_tokenizer(SPECIALS, eos_token="<|im_end|>")
    ids = {name: tokenizer.convert_tokens_to_ids(token) for name, token in zip(("image", "video", "start", "end"), SPECIALS, strict=True)}
    config = transformers.Qwen2VLConfig(
        text_config=text,
        vision_config=vision,
        image_token_id=ids["image"],
        video_token_id=ids["video"],
        vision_start_token_id=ids["start"],
        vision_end_token_id=ids["end"],
    )
    processor = transformers.Qwen2VLProcessor(
        image_processor=transformers.Qwen2VLImageProcessor(size=PIXELS),
        video_processor=transformers.Qwen2VLVideoProcessor(size=PIXELS),
        tokenizer=tokenizer,
        chat_template=TEMPLATE,
    )
    return Reference(draw(transformers.Qwen2VLForConditionalGeneration(config)), processor, inputs, patches)


TOWER = 631_183_360
"""Of all sizes, without the merger."""
SMALL, MIDDLE, LARGE = (
    Parameters(TOWER, 34_087_936, 0, 1_543_714_304),
    Parameters(TOWER, 44_575_744, 0, 7_615_616_512),
    Parameters(TOWER, 68_173_312, 0, 72_706_203_648),
)

QWEN2_VL = System(
    title="Qwen2-VL",
    counts={"qwen2-vl-2b": SMALL, "qwen2-vl-7b": MIDDLE, "qwen2-vl-72b": LARGE},
    tiny="qwen2-vl-tiny",
    reference=reference,
    servable=lambda size: size.aspect_ratio <= 200,
)

SYSTEMS = (
    QWEN2_VL,
    replace(QWEN2_VL, title="UI-TARS", counts={"ui-tars-2b": SMALL, "ui-tars-7b": MIDDLE, "ui-tars-72b": LARGE}),
    replace(QWEN2_VL, title="Tarsier2", counts={"tarsier2-7b": MIDDLE}),
)
"""The last two are the first one's parts with other weights."""
