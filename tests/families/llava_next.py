"""LLaVA-1.6 beside LlavaNextForConditionalGeneration, with transformers' own processor."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from families.llava import inputs
from families.system import Reference, System, patchify
from families.tiny import LANGUAGE, VISION, draw
from torch import Tensor
from transformers.models.llava_next.modeling_llava_next import image_size_to_num_patches

from vlmkit.architecture import Parameters
from vlmkit.encoders.base import Encoder
from vlmkit.preprocess.geometry import Size
from vlmkit.tokenizer import bytes_tokenizer

SIDE = 28
PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
"""The published ones, a twelfth as large."""


def patches(inputs: dict[str, Tensor], encoder: Encoder) -> Tensor:
    """Of tiles (images, most tiles, 3, H, W), without those that fill an image up to the number of another."""
    counts = [image_size_to_num_patches(size, PINPOINTS, SIDE) for size in inputs["image_sizes"]]
    views = (view for image, count in zip(inputs["pixel_values"], counts, strict=True) for view in image[:count])
    return torch.cat([patchify(view, encoder.patch_size) for view in views])


def reference(text: Any = None) -> Reference:
    vision = transformers.CLIPVisionConfig(**VISION, image_size=SIDE, patch_size=14)
    text = text or transformers.LlamaConfig(**LANGUAGE)
    config = transformers.LlavaNextConfig(
        vision_config=vision, text_config=text, image_token_index=263, image_grid_pinpoints=PINPOINTS, image_seq_length=4
    )
    roles = {"bos_token": "<s>", "eos_token": "</s>", "extra_special_tokens": {"image_token": "<image>"}}
    images = transformers.LlavaNextImageProcessor(
        size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}, image_grid_pinpoints=PINPOINTS
    )
    processor = transformers.LlavaNextProcessor(
        image_processor=images,
        tokenizer=bytes_tokenizer(["<image>", "<s>", "</s>"], **roles),
        patch_size=14,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
    )
    return Reference(draw(transformers.LlavaNextForConditionalGeneration(config)), processor, inputs, patches)


SYSTEMS = (
    System(
        title="LLaVA-1.6",
        counts={
            "llava-1.6-vicuna-7b": Parameters(303_507_456, 20_979_712, 4_096, 6_738_939_904),
            "llava-1.6-mistral-7b": Parameters(303_507_456, 20_979_712, 4_096, 7_242_256_384),
            "llava-1.6-vicuna-13b": Parameters(303_507_456, 31_467_520, 5_120, 13_016_519_680),
            "llava-1.6-34b": Parameters(303_507_456, 58_734_592, 7_168, 34_389_834_752),
        },
        tiny="llava-1.6-tiny",
        reference=reference,
        sizes=(Size(40, 52), Size(64, 33), Size(200, 30), Size(28, 28)),
    ),
)
