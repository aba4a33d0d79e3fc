"""LLaVA v1 by parts: CLIPVisionModel, one linear layer, LlamaForCausalLM, the prompt of `conv_llava_v1`."""

from __future__ import annotations

import transformers
from families.assembled import Assembled, no_whole
from families.system import System
from PIL import Image
from torch import Tensor
from torch.nn import functional

from vlmkit.architecture import Parameters

SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)

ROW = System(
    title="LLaVA v1",
    counts={
        "llava-v1-7b": Parameters(303_179_776, 4_198_400, 0, 6_738_440_192),
        "llava-v1-13b": Parameters(303_179_776, 5_248_000, 0, 13_015_895_040),
    },
    tiny="llava-v1-tiny",
    reference=no_whole,
    compared_with="by parts: CLIPVisionModel's last layer but one, one linear layer and LlamaForCausalLM put together by hand, pixels with "
    "CLIPImageProcessor's, ids with the prompt of `conv_llava_v1`; checkpoints with a small directory that upstream's "
    "LlavaLlamaForCausalLM saved, and its ids, logits, answers and pixels there (tests/families/llava_upstream.json). What vlmkit exports "
    "was loaded by that class once, by hand",
)


def pixels(image: Image.Image) -> Tensor:
    square = {"height": 224, "width": 224}
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 224}, crop_size=square)
    found: Tensor = processor(image, return_tensors="pt")["pixel_values"][0]
    return found


PARTS = Assembled(
    row=ROW,
    tower=transformers.CLIPVisionModel,
    features=lambda output: output.hidden_states[-2][:, 1:],
    projector=lambda weights, features: functional.linear(features, weights["linear.weight"], weights["linear.bias"]),
    decoder=transformers.LlamaForCausalLM,
    pixels=pixels,
    prompt=lambda image, question: f"<s>{SYSTEM} USER: <im_start>{image}<im_end>\n{question} ASSISTANT:",
    answered=lambda image, question, answer: f"<s>{SYSTEM} USER: <im_start>{image}<im_end>\n{question} ASSISTANT: {answer}</s>",
    visual_tokens=256,
    specials=("<im_patch>", "<s>", "</s>", "<im_start>", "<im_end>"),
    roles={"bos_token": "<s>", "eos_token": "</s>"},
)
