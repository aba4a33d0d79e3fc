"""Idefics2 beside Idefics2ForConditionalGeneration, with one view an image and with its quarters too."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import transformers
from families.idefics3 import BOUNDARY, END, TURNS
from families.system import Reference, System, chat, patchify
from families.tiny import LANGUAGE, VISION, beginning, draw
from torch import Tensor

from vlmkit.architecture import Parameters
from vlmkit.encoders.base import Encoder
from vlmkit.tokenizer import bytes_tokenizer


def patches(inputs: dict[str, Tensor], encoder: Encoder) -> Tensor:
    """Of images (1, V, 3, H, W) that are padded to the largest: those of which the mask (1, V, H, W) shows every pixel."""
    views = zip(inputs["pixel_values"][0], inputs["pixel_attention_mask"][0], strict=True)
    return torch.cat([patchify(view[:, : mask[:, 0].sum(), : mask[0].sum()], encoder.patch_size) for view, mask in views])


def reference(quarters: bool) -> Reference:
    text: Any = transformers.MistralConfig(**LANGUAGE, sliding_window=None)
    perceiver = dict(resampler_n_latents=4, resampler_depth=2, resampler_n_heads=4, resampler_head_dim=8, num_key_value_heads=2)
    config = transformers.Idefics2Config(
        vision_config={**VISION, "image_size": 70, "patch_size": 14},
        perceiver_config={**perceiver, "hidden_size": 32},
        text_config=text,
        image_token_id=263,
    )
    images = transformers.Idefics2ImageProcessor(size={"shortest_edge": 28, "longest_edge": 84}, do_image_splitting=quarters)
    tokenizer = beginning(bytes_tokenizer(["<image>", "<s>", END, BOUNDARY], bos_token="<s>", eos_token=END))
    processor = transformers.Idefics2Processor(image_processor=images, tokenizer=tokenizer, image_seq_len=4, chat_template=TURNS)
    return Reference(draw(transformers.Idefics2ForConditionalGeneration(config)), processor, chat, patches)


COUNTS = Parameters(417_792_240, 743_219_200, 0, 7_241_756_672)

SYSTEMS = (
    System(title="Idefics2", counts={"idefics2-8b": COUNTS}, tiny="idefics2-tiny", reference=partial(reference, quarters=False)),
    System(
        title="Idefics2 with quarters",
        counts={"idefics2-8b-split": COUNTS},
        tiny="idefics2-split-tiny",
        reference=partial(reference, quarters=True),
        servable=lambda size: min(size.height, size.width) > 1,
    ),
)
