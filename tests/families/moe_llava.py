"""MoE-LLaVA by parts: CLIPVisionModel, two linear layers, the decoder's class with a router and four FFNs in every second layer by the
equations of the paper (section 3.2), the prompt of `conv_phi`."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
import transformers
from families.assembled import Assembled, no_whole
from families.system import System
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.architecture import Parameters

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
EXPERTS, TOP = 4, 2

ROW = System(
    title="MoE-LLaVA",
    counts={
        "moe-llava-stablelm-1.6b-4e": Parameters(303_507_456, 6_295_552, 0, 2_890_321_920),
        "moe-llava-phi2-2.7b-4e": Parameters(303_507_456, 9_180_160, 0, 5_297_044_480),
        "moe-llava-qwen-1.8b-4e": Parameters(303_507_456, 6_295_552, 0, 3_054_323_712),
    },
    tiny="moe-llava-tiny",
    reference=no_whole,
    compared_with="arrays that PKU-YuanGroup/MoE-LLaVA's own class over Phi gave with its random second expert switched off, and a "
    "directory as it saves it (tests/golden/moe_llava); and by parts: CLIPVisionModel's last layer but one, the projector's equations and "
    "the decoder's class with the paper's equations of router and experts in its layers, put together by hand; experts and balancing loss "
    "with DeepSpeed's own layer too; pixels with CLIPImageProcessor's of an image that PIL padded to a square. The classes over StableLM "
    "and Qwen by parts alone, and their directories are not read",
)


class Mixed(nn.Module):
    """softmax(W x), the two largest, brought to a sum of 1, times what these FFNs make of x."""

    def __init__(self, ffn: nn.Module, dim: int) -> None:
        super().__init__()
        self.gate = nn.Linear(dim, EXPERTS, bias=False)
        self.ffns = nn.ModuleList(copy.deepcopy(ffn) for _ in range(EXPERTS))

    def forward(self, hidden: Tensor) -> Tensor:
        rows = hidden.reshape(-1, hidden.shape[-1])
        weights, chosen = self.gate(rows).softmax(dim=-1).topk(TOP)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        out = torch.zeros_like(rows)
        for row in range(len(rows)):
            for weight, number in zip(weights[row], chosen[row].tolist(), strict=True):
                out[row] += weight * self.ffns[number](rows[row])
        return out.view(hidden.shape)

    def take(self, state: Mapping[str, Tensor], prefix: str) -> None:
        """The weights of vlmkit's layer of that name."""
        self.gate.weight.data = state[f"{prefix}gate.weight"]
        for number, ffn in enumerate(self.ffns):
            ffn.load_state_dict({name: state[f"{prefix}experts.{name}"][number] for name in ffn.state_dict()})


def decoder(config: transformers.PreTrainedConfig) -> Any:
    """transformers' class, with experts in layers 0, 2, 4 and so on, that takes vlmkit's weights."""
    model = transformers.AutoModelForCausalLM.from_config(config)
    for layer in model.model.layers[::2]:
        layer.mlp = Mixed(layer.mlp, config.hidden_size)

    def load(state: Mapping[str, Tensor]) -> None:
        prefixes = [f"model.layers.{number}.mlp." for number in range(0, config.num_hidden_layers, 2)]
        for prefix in prefixes:
            model.get_submodule(prefix.rstrip(".")).take(state, prefix)
        plain = {name: value for name, value in state.items() if not name.startswith(tuple(prefixes))}
        missing, unexpected = nn.Module.load_state_dict(model, plain, strict=False)
        assert not unexpected
        assert all(name.startswith(tuple(prefixes)) for name in missing), missing

    model.load_state_dict = load
    return model


def projector(weights: Mapping[str, Tensor], features: Tensor) -> Tensor:
    first, up, second, down = (weights[name] for name in ("layers.0.weight", "layers.0.bias", "layers.2.weight", "layers.2.bias"))
    return functional.linear(functional.gelu(functional.linear(features, first, up)), second, down)


def pixels(image: Image.Image) -> Tensor:
    side = max(image.size)
    square = Image.new("RGB", (side, side), (122, 116, 104))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    processor = transformers.CLIPImageProcessor(size={"shortest_edge": 336}, crop_size={"height": 336, "width": 336})
    found: Tensor = processor(square, return_tensors="pt")["pixel_values"][0]
    return found


PARTS = Assembled(
    row=ROW,
    tower=transformers.CLIPVisionModel,
    features=lambda output: output.hidden_states[-2][:, 1:],
    projector=projector,
    decoder=decoder,
    pixels=pixels,
    prompt=lambda image, question: f"{SYSTEM} USER: {image}\n{question} ASSISTANT:",
    answered=lambda image, question, answer: f"{SYSTEM} USER: {image}\n{question} ASSISTANT: {answer}<|endoftext|>",
    visual_tokens=576,
    specials=("<image>",),
)
