"""LLM2CLIP by parts: OpenAI's or EVA02's tower, LLaVA-1.5's MLP and turns, LlamaForCausalLM."""

from __future__ import annotations

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import timm
import transformers
from families.assembled import Assembled, no_whole
from families.system import System
from families.yi_vl import padded
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.architecture import Architecture, Parameters
from vlmkit.encoders.timm import Timm

ROW = System(
    title="LLM2CLIP",
    counts={
        "llm2clip-openai-l-336-7b": Parameters(303_507_456, 20_979_712, 0, 6_738_939_904),
        "llm2clip-eva02-l-336-7b": Parameters(291_041_560, 20_979_712, 0, 6_738_939_904),
    },
    tiny="llm2clip-tiny",
    reference=no_whole,
    compared_with="by parts: the EVA02 tower with kept features of upstream's EVAVisionTransformer, whose weights it loads "
    "(tests/families/eva02_upstream.json); timm's or transformers' tower, the MLP's equations and LlamaForCausalLM put together by hand, "
    "pixels with CLIPImageProcessor's of a padded square, ids with LLaVA-1.5's prompt; checkpoints with a small directory that LLaVA's "
    "own LlavaLlamaForCausalLM saved (tests/families/llava_upstream.json), its tower named as a CLIPModel's, as OpenAI's of LLM2CLIP is: "
    "of the EVA02 tower LLaVA's code reads none",
)


class Eva(nn.Module):
    """timm's EVA02 without its last block and norm, of which LLaVA reads nothing."""

    def __init__(self, encoder: Timm) -> None:
        super().__init__()
        sizes = {"embed_dim": encoder.width, "depth": encoder.layers, "num_heads": encoder.heads, "img_size": encoder.image_size}
        self.vit = timm.create_model(encoder.model, num_classes=0, **sizes)
        del self.vit.blocks[-1]
        self.vit.norm = nn.Identity()

    def forward(self, views: Tensor, output_hidden_states: bool) -> Any:
        return SimpleNamespace(hidden_states=(self.vit.forward_features(views), None))


class WithEva(Assembled):
    def empty_tower(self, architecture: Architecture) -> nn.Module:
        encoder = architecture.encoder
        return Eva(encoder) if isinstance(encoder, Timm) else super().empty_tower(architecture)


def projector(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    first = functional.linear(features, weights["layers.0.weight"], weights["layers.0.bias"])
    return functional.linear(functional.gelu(first), weights["layers.2.weight"], weights["layers.2.bias"])


PARTS = WithEva(
    row=ROW,
    tower=transformers.CLIPVisionModel,
    features=lambda output: output.hidden_states[-2][:, 1:],
    projector=projector,
    decoder=transformers.LlamaForCausalLM,
    pixels=lambda image: padded(image, 336),
    prompt=lambda image, question: f"<s>USER: {image}\n{question} ASSISTANT:",
    answered=lambda image, question, answer: f"<s>USER: {image}\n{question} ASSISTANT: {answer}</s>",
    visual_tokens=576,
    specials=("<image>", "<s>", "</s>"),
    roles={"bos_token": "<s>", "eos_token": "</s>"},
)
