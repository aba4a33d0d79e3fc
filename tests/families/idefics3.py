"""Idefics3 and SmolVLM beside their classes of transformers, with the PIL backend of their image processors: Pillow's Lanczos."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import transformers
from families.system import Reference, System, chat, dense_patches
from families.tiny import LANGUAGE, VISION, draw
from transformers.models.smolvlm import processing_smolvlm

from vlmkit.architecture import Parameters
from vlmkit.tokenizer import bytes_tokenizer

# The processor will not be made without this package, which writes how many frames a video has. Nothing here has any.
processing_smolvlm.num2words = processing_smolvlm.num2words or str

TURNS = (
    "{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == 'image' %}{{':'}}"
    "{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""As the published tokenizers ask."""
BOUNDARY, END = "<fake_token_around_image>", "<end_of_utterance>"
TAGS = ("<global-img>", *(f"<row_{row}_col_{column}>" for row in (1, 2) for column in (1, 2)))
"""Special tokens of the small SmolVLMs, plain text in Idefics3."""


def with_pillow(cls: type[Any], directory: Path) -> Any:
    """A directory does not say with which library its pictures were resized."""
    processor = cls.from_pretrained(directory)
    processor.image_processor = transformers.AutoImageProcessor.from_pretrained(directory, backend="pil")
    return processor


def image_fields(size: int) -> dict[str, Any]:
    return {"size": {"longest_edge": 2 * size}, "max_image_size": {"longest_edge": size}}


def idefics3(text: Any = None) -> Reference:
    vision = {**VISION, "image_size": 56, "patch_size": 14}
    text = text or transformers.LlamaConfig(**LANGUAGE)
    config = transformers.Idefics3Config(vision_config=vision, text_config=text, image_token_id=263, scale_factor=2)
    tokenizer = bytes_tokenizer(["<image>", "<|begin_of_text|>", END, BOUNDARY], bos_token="<|begin_of_text|>", eos_token=END)
    processor = transformers.Idefics3Processor(
        image_processor=transformers.Idefics3ImageProcessorPil(**image_fields(56)),
        tokenizer=tokenizer,
        image_seq_len=4,
        chat_template="<|begin_of_text|>" + TURNS,
    )
    return Reference(
        draw(transformers.Idefics3ForConditionalGeneration(config)), processor, chat, dense_patches(), read_processor=with_pillow
    )


def smolvlm() -> Reference:
    vision = {**VISION, "image_size": 86, "patch_size": 14}
    text: Any = transformers.LlamaConfig(**LANGUAGE | {"bos_token_id": 258, "eos_token_id": 264})
    config = transformers.SmolVLMConfig(vision_config=vision, text_config=text, image_token_id=263, scale_factor=3)
    processor = transformers.SmolVLMProcessor(
        image_processor=transformers.SmolVLMImageProcessorPil(**image_fields(86)),
        video_processor=transformers.SmolVLMVideoProcessor(**image_fields(86)),
        tokenizer=bytes_tokenizer(["<image>", END, BOUNDARY, *TAGS], bos_token="<|im_start|>", eos_token=END),
        image_seq_len=4,
        chat_template="<|im_start|>" + TURNS,
    )
    return Reference(
        draw(transformers.SmolVLMForConditionalGeneration(config)), processor, chat, dense_patches(), read_processor=with_pillow
    )


SYSTEMS = (
    System(
        title="Idefics3",
        counts={"idefics3-8b-llama3": Parameters(412_926_192, 18_874_368, 0, 8_030_285_824)},
        tiny="idefics3-tiny",
        reference=idefics3,
    ),
    System(
        title="SmolVLM",
        counts={
            "smolvlm-256m": Parameters(86_433_024, 7_077_888, 0, 162_974_016),
            "smolvlm-500m": Parameters(86_433_024, 11_796_480, 0, 409_252_800),
            "smolvlm-2.2b": Parameters(412_987_248, 21_233_664, 0, 1_812_051_968),
        },
        tiny="smolvlm-tiny",
        reference=smolvlm,
    ),
)
