"""VideoLLaMA 3 beside VideoLlama3ForConditionalGeneration, with transformers' own processor."""

from __future__ import annotations

from typing import Any

import transformers
from families.system import Reference, System, chat
from families.tiny import LANGUAGE, VISION, draw
from torch import Tensor

from vlmkit.architecture import Parameters
from vlmkit.encoders.base import Encoder
from vlmkit.tokenizer import bytes_tokenizer

TEMPLATE = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' }}{% if message['content'] is string %}"
    "{{ message['content'] }}{% else %}{% for item in message['content'] %}{% if item['type'] == 'image' %}{{ '<|image_pad|>\\n' }}"
    "{% elif item['type'] == 'video' %}{{ '<|video_pad|>\\n' }}{% else %}{{ item['text'] }}{% endif %}{% endfor %}{% endif %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
"""What transformers' own tests of the published processors show: a line break behind each image."""
IMAGES = {"size": {"shortest_edge": 4 * 14 * 14, "longest_edge": 64 * 14 * 14}, "patch_size": 14, "merge_size": 1}
VIDEOS = {"size": {"shortest_edge": 4 * 28 * 28, "longest_edge": 64 * 28 * 28}, "patch_size": 14, "merge_size": 2}
NORMALISED = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}


def patches(inputs: dict[str, Tensor], encoder: Encoder) -> Tensor:
    """Of pictures: at a merge of 1 in vlmkit's order already."""
    return inputs["pixel_values"]


def reference() -> Reference:
    vision = transformers.VideoLlama3VisionConfig(**VISION, patch_size=14)
    numbers = LANGUAGE | {"bos_token_id": 257, "eos_token_id": 259, "rope_theta": 1e6, "tie_word_embeddings": True}
    text: Any = transformers.Qwen2Config(**numbers)
    config = transformers.VideoLlama3Config(vision_config=vision, text_config=text, image_token_id=263, video_token_id=264)
    processor = transformers.VideoLlama3Processor(
        image_processor=transformers.VideoLlama3ImageProcessor(**IMAGES, **NORMALISED),
        video_processor=transformers.VideoLlama3VideoProcessor(**VIDEOS, **NORMALISED),
        tokenizer=bytes_tokenizer(["<|image_pad|>", "<|video_pad|>"], eos_token="<|im_end|>"),
        chat_template=TEMPLATE,
    )
    return Reference(draw(transformers.VideoLlama3ForConditionalGeneration(config)), processor, chat, patches)


SYSTEMS = (
    System(
        title="VideoLLaMA 3",
        counts={
            "videollama3-2b": Parameters(412_147_440, 4_131_840, 0, 1_543_714_304),
            "videollama3-7b": Parameters(412_147_440, 16_980_992, 0, 7_615_616_512),
        },
        tiny="videollama3-tiny",
        reference=reference,
        servable=lambda size: size.aspect_ratio <= 200,
    ),
)
