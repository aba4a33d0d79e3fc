"""PaliGemma and PaliGemma 2 beside PaliGemmaForConditionalGeneration, with transformers' own processor."""

from __future__ import annotations

import warnings
from typing import Any

import torch
import transformers
from families.system import Conversation, Reference, System, dense_patches, images_of
from families.tiny import LANGUAGE, VISION, draw
from torch import Tensor

from vlmkit.architecture import Parameters
from vlmkit.tokenizer import bytes_tokenizer

TOWERS = {224: 412_442_352, 448: 413_327_088, 896: 416_866_032}
"""Parameters of the tower by image size: the table of positions grows."""
TEXT = LANGUAGE | {"vocab_size": 1472, "head_dim": 8}


def inputs(processor: Any, conversation: Conversation) -> dict[str, Tensor]:
    """A placeholder an image, then the question; the processor refuses a question without an image, which is written out."""
    images = images_of(conversation)
    (question,) = (item["text"] for message in conversation for item in message["content"] if item["type"] == "text")
    if not images:
        ids = torch.tensor([processor.tokenizer.encode(f"<bos>{question}\n", add_special_tokens=False)])
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids)}
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # its labels by way of numpy
        found = processor(images=images, text="<image>" * len(images) + question, return_tensors="pt")
    return {name: value for name, value in found.items() if name != "labels"}


def processor() -> Any:
    """The tokenizer has <image>, <bos> and <eos>; PaliGemmaProcessor adds locations and codes of masks."""
    roles = {"bos_token": "<bos>", "eos_token": "<eos>", "extra_special_tokens": {"image_token": "<image>"}}
    tokenizer = bytes_tokenizer(["<image>", "<bos>", "<eos>"], **roles)
    images = transformers.SiglipImageProcessor(size={"height": 28, "width": 28}, resample=3, image_seq_length=4)
    return transformers.PaliGemmaProcessor(image_processor=images, tokenizer=tokenizer)


def reference(text: Any) -> Reference:
    vision = transformers.SiglipVisionConfig(**VISION, image_size=28, patch_size=14, vision_use_head=False)
    config = transformers.PaliGemmaConfig(vision_config=vision, text_config=text, image_token_index=263, projection_dim=32, hidden_size=32)
    return Reference(draw(transformers.PaliGemmaForConditionalGeneration(config)), processor(), inputs, dense_patches())


def counts(name: str, connector: int, language_model: int) -> dict[str, Parameters]:
    """PaliGemmaForConditionalGeneration on the meta device, every image size."""
    return {f"{name}-{size}": Parameters(tower, connector, 0, language_model) for size, tower in TOWERS.items()}


SYSTEMS = (
    System(
        title="PaliGemma",
        counts=counts("paligemma-3b", 2_361_344, 2_508_662_784),
        tiny="paligemma-tiny",
        reference=lambda: reference(transformers.GemmaConfig(**TEXT)),
    ),
    System(
        title="PaliGemma 2",
        counts={
            **counts("paligemma2-3b", 2_656_512, 2_617_143_552),
            **counts("paligemma2-10b", 4_132_352, 9_246_064_128),
            **counts("paligemma2-28b", 5_313_024, 27_232_731_648),
        },
        tiny="paligemma2-tiny",
        reference=lambda: reference(transformers.Gemma2Config(**TEXT, query_pre_attn_scalar=8, sliding_window=8)),
    ),
)
