"""Checkpoints in the layout of github.com/haotian-liu/LLaVA: LlavaLlamaForCausalLM and LlavaMistralForCausalLM, that is LLaVA
(arXiv:2304.08485), LLaVA-1.5 (arXiv:2310.03744) and LLaVA-1.6 as liuhaotian/llava-* publishes them, and Yi-VL, whose code
(github.com/01-ai/Yi, VL/) is made of it.

config.json is the language model's with fields about images beside. The vision tower lies elsewhere: `mm_vision_tower` names a directory,
within this one (Yi-VL), on this machine, or a repository of a hub. Weights of a tower that lie in this directory
(`unfreeze_mm_vision_tower`) come before those. What is written (`vlmkit export --format llava`) has the tower in it: its weights beside the
others where `mm_vision_tower` names a published tower of this size, else as a directory of its own in `vit/`.

How conversations are written stands nowhere in such a directory: upstream's programs choose it by the directory's name, or are told. Here
it follows from what is in it: `mm_default` with Yi-VL's projector, `llava_v1` with start and end tokens, `mistral_instruct` over Mistral,
`chatml_direct` where <|im_start|> is a token, else `vicuna_v1`. A chat template beside the tokenizer that writes images comes before
those; others there are the language model's own, which upstream never reads. A tokenizer that is a tokenizer.model alone needs a package:
`pip install 'vlmkit[sentencepiece]'`. Upstream's code reads tokenizer.model: it is copied where the tokenizer was read of one.

Run beside upstream's code on small directories that it saved, and its code on what is written here; no directory of the hub was ever read,
for there was no network.

A language model may be Llama or Mistral, a projector `linear`, `mlp2x_gelu` of any depth, or with Yi-VL's `_Norm`. Rows of padding that
LLaVA-1.6 leaves out are counted as transformers does: upstream rounds a floating-point number down, and of one size in 50,000 (748 x 352)
keeps a row or column more at either end.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.agreement import refuse_other
from vlmkit.checkpoints.family import made_of
from vlmkit.checkpoints.llava_original_files import Files
from vlmkit.checkpoints.llava_original_images import merge_type, policy_fields, policy_of
from vlmkit.checkpoints.llava_original_prompt import layout_of
from vlmkit.checkpoints.llava_original_text import language_model_of, text_fields, tokenizer_of
from vlmkit.checkpoints.llava_original_tower import Tower, encoder_of, tower_at, tower_of, tower_weights, write_tower
from vlmkit.checkpoints.llava_original_weights import has_tower, to_ours, to_theirs
from vlmkit.checkpoints.published import read_json, read_weights, refuse_unknown, write_json, write_weights
from vlmkit.connectors.base import Connector
from vlmkit.connectors.linear import Linear
from vlmkit.connectors.mlp import Mlp
from vlmkit.fusion.splice import Splice
from vlmkit.layout.bracketed import Bracketed
from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor

NAMES = {"llama": ("LlavaLlamaForCausalLM", "llava_llama"), "mistral": ("LlavaMistralForCausalLM", "llava_mistral")}
"""Type of the language model -> the class, and its `model_type`. Earlier versions and Yi-VL's call theirs `llava`."""
READ = frozenset(
    {
        *("image_aspect_ratio", "image_grid_pinpoints", "mm_hidden_size", "mm_patch_merge_type", "mm_projector_type"),
        *("mm_use_im_start_end", "mm_vision_select_feature", "mm_vision_select_layer", "mm_vision_tower"),
    }
)
FREE = READ | frozenset(
    {
        *("freeze_mm_mlp_adapter", "freeze_mm_vision_resampler", "image_crop_resolution", "image_split_resolution", "mm_projector_lr"),
        *("mm_use_im_patch_token", "mm_vision_tower_lr", "pretrain_mm_mlp_adapter", "tokenizer_model_max_length"),
        *("tokenizer_padding_side", "tune_mm_mlp_adapter", "tune_mm_vision_resampler", "unfreeze_mm_vision_tower", "use_mm_proj"),
    }
)
"""Fields about images that are read, or say how it was trained."""
FIXED: dict[str, Any] = {"s2": False, "sep_image_conv_front": False}
"""What a config has to say of what is built, where it says it."""
NO_MATTER = ("pad_token_id", "bos_token_id", "eos_token_id", "dtype", "initializer_range", "use_cache", "layer_types")
"""Of the language model's config, what is told elsewhere, or changes nothing."""
_MLP = re.compile(r"mlp([1-9][0-9]?)x_gelu(_Norm)?")


class LlavaOriginal:
    """A Published (published.py)."""

    def load(self, directory: str, dtype: torch.dtype | None = None) -> tuple[VLM, VLMProcessor]:
        """Model and processor of a published directory, in its own dtype unless another is asked for. Raises SpecError for what vlmkit does
        not build, listing keys that are missing or unexpected, and where the vision tower is nowhere to be found."""
        from transformers import GenerationConfig

        from vlmkit.processor import VLMProcessor

        architecture, tokenizer = self._read(directory)
        if Path(directory, "mm_projector.bin").exists() and not any(Path(directory).glob("*.safetensors")):
            _refuse_projector_alone(directory)
        weights = to_ours(read_weights(directory), architecture)
        if dtype is None and (head := weights.get("language_model.lm_head.weight")) is not None:
            dtype = head.dtype
        if not has_tower(weights):
            weights |= tower_weights(directory, architecture.encoder)
        model = made_of(architecture, weights, directory, dtype or torch.float32)
        if Path(directory, "generation_config.json").exists():
            said = read_json(directory, "generation_config.json")
            model.generation_config = GenerationConfig.from_dict(said | {"_from_model_config": False})
        return model, VLMProcessor(tokenizer, architecture=architecture.to_dict())

    def described(self, directory: str) -> Architecture:
        return self._read(directory)[0]

    def _read(self, directory: str) -> tuple[Architecture, Any]:
        config = read_json(directory, "config.json")
        _refuse_other_fields(config)
        tokenizer = tokenizer_of(directory, config)
        return architecture_of(config, tower_at(directory, config["mm_vision_tower"]), tokenizer).validate(), tokenizer

    def config(self, architecture: Architecture, processor: VLMProcessor) -> dict[str, Any]:
        return config_of(architecture, processor)

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Files:
        """The published tokenizer has no part in images; turns are written by upstream's code."""
        return Files(tower_of(architecture), processor)

    def check(self, architecture: Architecture) -> None:
        """Everything was looked at where the config was made."""

    def export(self, model: VLM, processor: Files, config: dict[str, Any], directory: str) -> None:
        """Write a directory that upstream's class loads."""
        weights = to_theirs(model.state_dict())
        if processor.tower.published is None:
            weights = write_tower(directory, config["mm_vision_tower"], processor.tower, weights)
        write_json(directory, "config.json", config | {"torch_dtype": str(model.dtype).removeprefix("torch.")})
        model.generation_config.save_pretrained(directory)
        processor.save(directory, config)
        write_weights(directory, weights)


def architecture_of(config: dict[str, Any], tower: Tower, tokenizer: Any) -> Architecture:
    """The parts that a published config describes with its tower. Raises SpecError for what vlmkit does not build."""
    language_model = language_model_of(config, READ | FREE | FIXED.keys())
    encoder = encoder_of(config, tower)
    if (stated := config.get("mm_hidden_size", encoder.dim_out)) != encoder.dim_out:
        raise SpecError(f"config.json.mm_hidden_size: {stated} channels, but the tower {tower.place!r} gives {encoder.dim_out}")
    return Architecture(
        name=f"llava-original-{language_model.model_type}",
        policy=policy_of(config, tower.images, encoder),
        encoder=encoder,
        connector=connector_of(config),
        layout=layout_of(config, tokenizer),
        fusion=Splice(),
        language_model=language_model,
    )


def connector_of(config: dict[str, Any]) -> Connector:
    """Raises SpecError for a projector that is none of upstream's."""
    said = config.get("mm_projector_type", "linear")
    if said == "linear":
        return Linear()
    if not isinstance(said, str) or (found := _MLP.fullmatch(said)) is None:
        raise SpecError(
            f"config.json.mm_projector_type: {said!r} is not built; expected 'linear', 'mlp2x_gelu' with any number of layers, or "
            "'mlp2x_gelu_Norm'"
        )
    depth, normed = int(found[1]), found[2] is not None
    return Mlp(
        depth=depth,
        norm_between="layer_norm" if normed and depth > 1 else "none",
        norm_out="layer_norm" if normed else "none",
    )


def projector_type(connector: Connector) -> str:
    """The inverse of `connector_of`. Raises SpecError for a connector that upstream has no name of."""
    names = ["linear"]
    if isinstance(connector, Mlp):
        names = [f"mlp{connector.depth}x_gelu", f"mlp{connector.depth}x_gelu_Norm"]
    found = next((name for name in names if connector_of({"mm_projector_type": name}) == connector), None)
    if found is None:
        raise SpecError(f"LlavaLlamaForCausalLM has a linear layer, or an mlp of them with or without layer norms, but not {connector}")
    return found


def config_of(architecture: Architecture, processor: VLMProcessor) -> dict[str, Any]:
    """The inverse of `architecture_of`. Raises SpecError for an architecture that the published class cannot express."""
    text = architecture.language_model.transformers_config()
    if text.model_type not in NAMES:
        raise SpecError(f"LlavaLlamaForCausalLM is over Llama or Mistral, but the language model is {text.model_type!r}")
    name, model_type = NAMES[text.model_type]
    if not isinstance(architecture.fusion, Splice):
        raise SpecError(f"{name} splices visual tokens, but the fusion is {architecture.fusion.kind!r}")
    projector, tower = projector_type(architecture.connector), tower_of(architecture)
    encoder: Any = architecture.encoder
    said = {
        **text_fields(text),
        "architectures": [name],
        "model_type": "llava" if projector.endswith("_Norm") else model_type,
        "mm_hidden_size": encoder.width,
        "mm_projector_type": projector,
        "mm_use_im_patch_token": "<im_patch>" in processor.plain_tokenizer.specials,
        "mm_use_im_start_end": isinstance(architecture.layout, Bracketed),
        "mm_vision_select_feature": "patch" if encoder.class_token == "drop" else "cls_patch",
        "mm_vision_select_layer": encoder.layer,
        "mm_vision_tower": tower.place,
        "tune_mm_mlp_adapter": False,
        "use_mm_proj": True,
        **policy_fields(architecture.policy),
    }
    merged = merge_type(architecture.layout)
    said |= {} if merged == "flat" and said["model_type"] == "llava" else {"mm_patch_merge_type": merged}  # Yi-VL has no such field
    said |= {} if tower.published is None else {"unfreeze_mm_vision_tower": True}
    read = architecture_of(said, tower, processor.tokenizer)
    told: dict[str, Any] = {"template": read.layout.template, "after_image": read.layout.after_image}  # a chat template has them
    if not processor.plain_tokenizer.sets_off_first:
        told["begins_anew"] = read.layout.begins_anew  # the same ids either way
    plain = architecture.replace(encoder=encoder.replace(checkpoint=None, attention="sdpa"), layout=architecture.layout.replace(**told))
    refuse_other(name, plain, read.replace(encoder=read.encoder.replace(checkpoint=None)), NO_MATTER)
    return said


def _refuse_other_fields(config: dict[str, Any]) -> None:
    if not isinstance(config.get("mm_vision_tower"), str):
        raise SpecError(
            f"config.json.mm_vision_tower: expected a directory or a name on a hub, got {config.get('mm_vision_tower')!r}; a LLaVA "
            "without eyes is a language model of its own"
        )
    seeing = {name: value for name, value in config.items() if _SEES.match(name) and value is not None}
    refuse_unknown("config.json", seeing, FIXED, FREE)


_SEES = re.compile(r"mm_|image_|vision_|s2|tune_|freeze_|unfreeze_|sep_image|use_mm|tokenizer_|pretrain_")
"""Beginnings of names of fields about images."""


def _refuse_projector_alone(directory: str) -> None:
    if not any(Path(directory).glob("pytorch_model*.bin")):
        raise SpecError(
            f"{directory} holds the projector alone (mm_projector.bin), which LLaVA's first stage trains; load a directory of its second "
            "stage, or of the whole"
        )


FAMILY = LlavaOriginal()
