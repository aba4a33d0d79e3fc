"""OmniVLM by parts: SiglipVisionModel, nine tokens folded into one and two linear layers, Qwen2ForCausalLM, the runner's prompt. Its runner
and its files are test_omnivlm.py's."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import transformers
from families.assembled import Assembled, no_whole
from families.system import System
from PIL import Image
from torch import Tensor
from torch.nn import functional

from vlmkit.architecture import Parameters

SYSTEM = "<|im_start|>system\nYou are Nano-Omni-VLM, created by Nexa AI. You are a helpful assistant.<|im_end|>\n"

ROW = System(
    title="OmniVLM",
    counts={"omnivlm-968m": Parameters(412_987_248, 46_142_336, 0, 494_032_768)},
    tiny="omnivlm-tiny",
    reference=no_whole,
    compared_with="arrays that NexaAI/llama.cpp's own omni-vlm gave of pairs of GGUF files, with float32 where it would look GELU up in "
    "float16 (tests/golden/omnivlm), and by parts: SiglipVisionModel, the projector's equations and Qwen2ForCausalLM put together by "
    "hand; pixels with SiglipImageProcessor's at 384 of which 378 are seen, ids with the runner's; checkpoints with the pair that its "
    "scripts wrote, tensor by tensor and field by field. The published 968,400,704 parameters have SigLIP's pooling head, which nobody "
    "reads",
)


def pooling_head() -> int:
    """Parameters of SigLIP So400m's head, which the published count has."""
    with torch.device("meta"):
        config = transformers.SiglipVisionConfig(
            hidden_size=1152, intermediate_size=4304, num_hidden_layers=1, num_attention_heads=16, patch_size=14, image_size=384
        )
        tower = transformers.SiglipVisionModel(config)
        return sum(parameter.numel() for name, parameter in tower.named_parameters() if ".head." in f".{name}")


def projector(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """Tokens that follow one another side by side, Linear, tanh GELU, Linear."""
    first, up, second, down = (weights[name] for name in ("mlp.0.weight", "mlp.0.bias", "mlp.2.weight", "mlp.2.bias"))
    folded = features.reshape(len(features), -1, first.shape[1])
    return functional.linear(functional.gelu(functional.linear(folded, first, up), approximate="tanh"), second, down)


def pixels(image: Image.Image) -> Tensor:
    processor = transformers.SiglipImageProcessor(size={"height": 384, "width": 384}, resample=Image.Resampling.BICUBIC)
    found: Tensor = processor(image, return_tensors="pt")["pixel_values"][0]
    return found


PARTS = Assembled(
    row=ROW,
    tower=transformers.SiglipVisionModel,
    features=lambda output: output.last_hidden_state,
    projector=projector,
    decoder=transformers.Qwen2ForCausalLM,
    pixels=pixels,
    prompt=lambda image, question: f"{SYSTEM}<|im_start|>user\n\n<|vision_start|>{image}<|vision_end|>{question}<|im_end|>",
    answered=lambda image, question, answer: (
        f"{SYSTEM}<|im_start|>user\n\n<|vision_start|>{image}<|vision_end|>{question}<|im_end|>{answer}<|im_end|>"
    ),
    visual_tokens=81,
    specials=("<|image_pad|>", "<|vision_start|>", "<|vision_end|>"),
    beside=pooling_head,
)
