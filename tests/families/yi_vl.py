"""Yi-VL by parts: CLIPVisionModel, Linear, LayerNorm, GELU, Linear, LayerNorm, LlamaForCausalLM, the prompt of `mm_default`."""

from __future__ import annotations

from collections.abc import Mapping

import transformers
from families.assembled import Assembled, no_whole
from families.system import System
from PIL import Image
from torch import Tensor
from torch.nn import functional

from vlmkit.architecture import Parameters

SYSTEM = (
    "This is a chat between an inquisitive human and an AI assistant. Assume the role of the AI assistant. "
    "Read all the images carefully, and respond to the human's questions with informative, helpful, detailed and polite answers. "
    "这是一个好奇的人类和一个人工智能助手之间的对话。"
    "假设你扮演这个AI助手的角色。仔细阅读所有的图像，并对人类的问题做出信息丰富、有帮助、详细的和礼貌的回答。"  # noqa: RUF001
)

ROW = System(
    title="Yi-VL",
    counts={
        "yi-vl-6b": Parameters(631_749_120, 22_044_672, 0, 6_061_035_520),
        "yi-vl-34b": Parameters(631_749_120, 60_598_272, 0, 34_388_917_248),
    },
    tiny="yi-vl-tiny",
    reference=no_whole,
    compared_with="by parts: CLIPVisionModel's last layer but one, the projector's equations and LlamaForCausalLM put together by hand, "
    "pixels with CLIPImageProcessor's of an image that PIL padded to a square, ids with the prompt of `mm_default`; checkpoints with a "
    "small directory that upstream's LlavaLlamaForCausalLM saved, and its ids, logits, answers and pixels there "
    "(tests/families/llava_upstream.json). What vlmkit exports was loaded by that class once, by hand",
)


def projector(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    def normed(values: Tensor, number: int) -> Tensor:
        mean, variance = values.mean(-1, keepdim=True), values.var(-1, keepdim=True, correction=0)
        return (values - mean) / (variance + 1e-5).sqrt() * weights[f"layers.{number}.weight"] + weights[f"layers.{number}.bias"]

    first = normed(functional.linear(features, weights["layers.0.weight"], weights["layers.0.bias"]), 1)
    return normed(functional.linear(functional.gelu(first), weights["layers.3.weight"], weights["layers.3.bias"]), 4)


def padded(image: Image.Image, size: int) -> Tensor:
    """LLaVA-1.5's preprocessing: padded to a square of the mean colour, then CLIP's."""
    side = max(image.size)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": size}, crop_size={"height": size, "width": size})
    found: Tensor = processor(square, return_tensors="pt")["pixel_values"][0]
    return found


PARTS = Assembled(
    row=ROW,
    tower=transformers.CLIPVisionModel,
    features=lambda output: output.hidden_states[-2][:, 1:],
    projector=projector,
    decoder=transformers.LlamaForCausalLM,
    pixels=lambda image: padded(image, 448),
    prompt=lambda image, question: f"{SYSTEM}\n\n### Human: {image}\n{question}\n### Assistant:",
    answered=lambda image, question, answer: f"{SYSTEM}\n\n### Human: {image}\n{question}\n### Assistant: {answer}\n###",
    visual_tokens=1024,
    specials=("<|im_sep|>",),
)
