"""NVLM-D by parts: InternVLVisionModel, pixel shuffle, LayerNorm, Linear, GELU, Linear, Qwen2ForCausalLM, the prompt of the published
code's `chat`."""

from __future__ import annotations

from collections.abc import Mapping

import transformers
from families.assembled import Assembled, no_whole
from families.system import System
from PIL import Image
from torch import Tensor
from torch.nn import functional

from vlmkit.architecture import Parameters

D = System(
    title="NVLM-D",
    counts={"nvlm-d-72b": Parameters(5_536_496_000, 620_717_056, 0, 72_706_203_648)},
    tiny="nvlm-d-tiny",
    reference=no_whole,
    compared_with="by parts: InternVLVisionModel, the projector's equations and Qwen2ForCausalLM put together by hand, pixels with "
    "GotOcr2ImageProcessor's patches, numbers of tiles with those of the published `dynamic_preprocess`, ids with the prompt that "
    "`NVLM_D_Model.chat` writes and the paper's system message",
)

TURN = "<|im_start|>system\nFollow the user's instruction and answer questions.<|im_end|>\n<|im_start|>user\n"
A_VIEW = 4
"""Visual tokens of a view of the tiny model."""


def shuffled(features: Tensor) -> Tensor:
    """(V, n * n, D) -> (V, n * n / 4, 4 D), as the published `pixel_shuffle` of version 2 does: columns first, then rows."""
    views, tokens, dim = features.shape
    side = round(tokens**0.5)
    merged = features.reshape(views, side, side // 2, 2 * dim).transpose(1, 2)
    return merged.reshape(views, side // 2, side // 2, 4 * dim).transpose(1, 2).flatten(1, 2)


def projector(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    merged = shuffled(features)
    mean, variance = merged.mean(-1, keepdim=True), merged.var(-1, keepdim=True, correction=0)
    normed = (merged - mean) / (variance + 1e-5).sqrt() * weights["inner.layers.0.weight"] + weights["inner.layers.0.bias"]
    return functional.linear(functional.gelu(functional.linear(normed, weights["inner.layers.1.weight"])), weights["inner.layers.3.weight"])


def pixels(image: Image.Image) -> Tensor:
    processor = transformers.GotOcr2ImageProcessor(
        size={"height": 448, "width": 448},
        crop_to_patches=True,
        min_patches=1,
        max_patches=6,
        image_mean=(0.485, 0.456, 0.406),
        image_std=(0.229, 0.224, 0.225),
    )
    found: Tensor = processor(image, return_tensors="pt")["pixel_values"]
    return found


def tagged(image: str) -> str:
    """The places of an image with the tags before those of each view."""
    token = "<|vision_pad|>" * A_VIEW
    views = image.count("<|vision_pad|>") // A_VIEW
    tags = [*(f"<tile_{number}>" for number in range(1, views)), "<tile_global_thumbnail>"]
    return f"<Image>{''.join(tag + token for tag in tags)}</Image>"


def prompt(image: str, question: str) -> str:
    return f"{TURN}{tagged(image)}\n{question}<|im_end|>\n<|im_start|>assistant\n"


PARTS = Assembled(
    row=D,
    tower=transformers.InternVLVisionModel,
    features=lambda output: output.hidden_states[-1][:, 1:],
    projector=projector,
    decoder=transformers.Qwen2ForCausalLM,
    pixels=pixels,
    prompt=prompt,
    answered=lambda image, question, answer: f"{prompt(image, question)}{answer}<|im_end|>\n",
    visual_tokens=1792,
    specials=("<|vision_pad|>",),
)
