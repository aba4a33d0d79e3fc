"""InternViT's weights under OpenGVLab's names, which InternVL's and NVLM's published checkpoints have, and under transformers'.

Theirs has one linear layer for queries, keys and values. NVLM-D (github.com/NVIDIA/Megatron-LM, examples/multimodal/nvlm) adds heads of
which nothing is seen, so that their number divides by that of its GPUs: 7 to InternViT-6B's 25. They are left out when a checkpoint is
read, after a look at whether they are nothing, and zeros where one is written.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlmkit.hub import refuse_unreachable
from vlmkit.spec import SpecError

PLAIN = {
    "embeddings.class_embedding": "embeddings.cls_token",
    "embeddings.patch_embedding.": "embeddings.patch_embeddings.projection.",
    "embeddings.position_embedding": "embeddings.position_embeddings",
}
IN_A_LAYER = {
    "attn.q_norm.": "attention.q_norm.",
    "attn.k_norm.": "attention.k_norm.",
    "attn.proj.": "attention.projection_layer.",
    "mlp.": "mlp.",
    "norm1.": "layernorm_before.",
    "norm2.": "layernorm_after.",
    "ls1": "lambda_1",
    "ls2": "lambda_2",
}
"""OpenGVLab's beginning of a name -> transformers'. Those of queries, keys and values are cut and joined besides."""
QKV = ("attention.q_proj.", "attention.k_proj.", "attention.v_proj.")


def from_opengvlab(weights: Mapping[str, Tensor], width: int) -> dict[str, Tensor]:
    """Weights of a tower of this width under transformers' names, without heads that were added. Raises SpecError where such heads add
    something; an unknown name stays as it is."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        layer = re.match(r"encoder\.layers\.(\d+)\.(.*)", name)
        if layer is None:
            found[_renamed(name, PLAIN)] = value
            continue
        before, inside = f"encoder.layer.{layer[1]}.", layer[2]
        if inside.startswith("attn.qkv."):
            parts = value.chunk(3)
            if len(parts[0]) > width:
                _refuse_heads_that_add(parts[2], weights.get(f"encoder.layers.{layer[1]}.attn.proj.weight"), width, name)
            for part, theirs in zip(parts, QKV, strict=True):
                found[before + theirs + inside.removeprefix("attn.qkv.")] = part[:width]
        elif inside == "attn.proj.weight":
            found[before + _renamed(inside, IN_A_LAYER)] = value[:, :width]
        else:
            found[before + _renamed(inside, IN_A_LAYER)] = value[:width] if inside.startswith(("attn.q_norm.", "attn.k_norm.")) else value
    return found


def to_opengvlab(weights: Mapping[str, Tensor], added: int = 0) -> dict[str, Tensor]:
    """The inverse, with room for so many added channels of heads: zeros, and ones in norms."""
    found: dict[str, Tensor] = {}
    for name, value in weights.items():
        layer = re.match(r"encoder\.layer\.(\d+)\.(.*)", name)
        if layer is None:
            found[_renamed(name, _inverse(PLAIN))] = value
            continue
        before, inside = f"encoder.layers.{layer[1]}.", layer[2]
        if inside.startswith(QKV[0]):
            kind = inside.removeprefix(QKV[0])
            parts = (weights[f"encoder.layer.{layer[1]}.{part}{kind}"] for part in QKV)
            found[f"{before}attn.qkv.{kind}"] = torch.cat([_widened(part, 0, added, 0.0) for part in parts])
        elif inside.startswith(QKV):
            continue
        elif inside == "attention.projection_layer.weight":
            found[f"{before}attn.proj.weight"] = _widened(value, 1, added, 0.0)
        elif inside.startswith(("attention.q_norm.", "attention.k_norm.")):
            found[before + _renamed(inside, _inverse(IN_A_LAYER))] = _widened(value, 0, added, 1.0)
        else:
            found[before + _renamed(inside, _inverse(IN_A_LAYER))] = value
    return found


def _renamed(name: str, names: Mapping[str, str]) -> str:
    old = next((old for old in names if name.startswith(old)), "")
    return names.get(old, "") + name.removeprefix(old)


def _inverse(names: Mapping[str, str]) -> dict[str, str]:
    return {theirs: ours for ours, theirs in names.items()}


def _widened(value: Tensor, axis: int, added: int, filling: float) -> Tensor:
    if not added:
        return value
    shape = [added if number == axis else side for number, side in enumerate(value.shape)]
    return torch.cat([value, value.new_full(shape, filling)], dim=axis)


def _refuse_heads_that_add(values: Tensor, projection: Tensor | None, width: int, name: str) -> None:
    """Raise SpecError unless what the heads behind the first `width` channels give is nothing, or is multiplied by nothing."""
    if not bool(values[width:].any()) or (projection is not None and not bool(projection[:, width:].any())):
        return
    raise SpecError(
        f"{name} has {len(values)} channels of heads where the tower has {width}, and what the further ones give is not nothing: they "
        "cannot be left out; state the width and the heads that the checkpoint has"
    )


def is_opengvlab(checkpoint: str) -> bool:
    """Whether a checkpoint is of OpenGVLab's own class, and not of transformers'. A local directory was run; the hub never was."""
    return str(_config(checkpoint).get("model_type")).startswith("intern_vit")


def read_opengvlab(checkpoint: str, numbers: Mapping[str, Any]) -> dict[str, Tensor]:
    """The weights of a tower with these numbers, under the names of OpenGVLab's config, as `from_opengvlab` gives them. Raises SpecError
    listing the numbers in which the config differs; those that it leaves out are taken for the same."""
    config = _config(checkpoint)
    wrong = [f"{name} is {config[name]!r}, the spec says {said!r}" for name, said in numbers.items() if config.get(name, said) != said]
    if wrong:
        raise SpecError(f"the checkpoint {checkpoint} does not fit the encoder 'intern_vit': {'; '.join(wrong)}")
    return from_opengvlab(_weights(checkpoint), numbers["hidden_size"])


def _config(checkpoint: str) -> dict[str, Any]:
    from transformers import PretrainedConfig

    refuse_unreachable(checkpoint, "config.json")
    found: dict[str, Any] = PretrainedConfig.get_config_dict(checkpoint)[0]
    return found


def _weights(checkpoint: str) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    directory = Path(checkpoint)
    if not directory.is_dir():
        from huggingface_hub import snapshot_download

        directory = Path(snapshot_download(checkpoint, allow_patterns=["*.safetensors"]))
    return {name: value for file in sorted(directory.glob("*.safetensors")) for name, value in load_file(file).items()}
