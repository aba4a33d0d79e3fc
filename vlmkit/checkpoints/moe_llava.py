"""Checkpoints of MoELLaVAPhiForCausalLM of github.com/PKU-YuanGroup/MoE-LLaVA (Lin et al. 2024, arXiv:2401.15947).

config.json is Phi's with fields about images and a table `moe` beside: which layers have experts, how many, of which a token goes to two,
and how many tokens one takes at most. In evaluation that bound is read where it is none (`eval_capacity_factor` of half the experts or
more), for there is none here; DeepSpeed draws the second expert at random there too, unless it is told not to, and here it is the second
best. The head has no bias, other than Phi-2's: `LanguageModel.plain_head`, without which nothing is written.

The tower lies where `mm_image_tower` says: a directory within this one or on this machine, or a repository of a hub. Weights of it that lie
in this directory come before those. Conversations are those of `conv_phi`. Where visual tokens stand is a token that no turn writes,
<image>, or the tokenizer's unknown one.

Run beside upstream's code on a small directory that it saved; no directory of the hub was ever read, for there was no network. The classes
over StableLM and Qwen are not read: they bring language models of their own.
"""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.agreement import refuse_other
from vlmkit.checkpoints.family import made_of
from vlmkit.checkpoints.llava_original import connector_of, projector_type
from vlmkit.checkpoints.llava_original_images import policy_fields, policy_of
from vlmkit.checkpoints.llava_original_text import language_model_of, tokenizer_of
from vlmkit.checkpoints.llava_original_tower import Tower, encoder_of, tower_at, tower_of, tower_weights, write_tower
from vlmkit.checkpoints.llava_original_weights import TOWER, has_tower
from vlmkit.checkpoints.moe_llava_weights import RENAMES, to_ours, to_theirs
from vlmkit.checkpoints.published import read_json, read_weights, refuse_unknown, write_json, write_weights
from vlmkit.experts import Experts
from vlmkit.fusion.splice import Splice
from vlmkit.layout.reading import added_around
from vlmkit.layout.run import Run
from vlmkit.spec import SpecError
from vlmkit.zoo.moe_llava import CURIOUS

if TYPE_CHECKING:
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor

NAME, MODEL_TYPE = "MoELLaVAPhiForCausalLM", "moe_llava_phi"
READ = frozenset(
    {
        *("image_aspect_ratio", "image_projector_type", "mm_hidden_size", "mm_image_tower", "mm_vision_select_feature"),
        *("mm_vision_select_layer", "moe"),
    }
)
FREE = READ | frozenset(
    {
        *("freeze_mm_mlp_adapter", "mm_use_im_patch_token", "tokenizer_model_max_length", "tokenizer_padding_side"),
        *("tune_mm_mlp_adapter", "use_mm_proj", "video_global_proj", "video_projector_type", "video_spatial_proj"),
        *("video_temproal_proj", "image_grid_pinpoints", "pretrain_mm_mlp_adapter", "mm_projector_lr"),
    }
)
"""Fields about images that are read, or say how it was trained, or are of a tower of films that there is not."""
FIXED: dict[str, Any] = {"mm_use_im_start_end": False, "mm_video_tower": None, "qk_layernorm": False}
"""What a config has to say of what is built, where it says it."""
MOE: dict[str, Any] = {"moe_enable": True, "use_residual": False}
"""The same of its table `moe`."""
MOE_READ = ("num_experts", "top_k_experts", "moe_layers_idx", "capacity_factor", "eval_capacity_factor", "router_aux_loss_coef")
MOE_FREE = (*MOE_READ, "moe_mode", "ep_size", "min_capacity", "train_modules")
TEXT = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("hidden_act", "max_position_embeddings", "initializer_range", "layer_norm_eps", "use_cache", "tie_word_embeddings"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "attention_dropout", "embd_pdrop", "resid_pdrop"),
)
CLIP = "openai"
"""Where a tower is put that is published nowhere: upstream, run from within the directory, reads it there."""
PLACES = ("<image>", "<|extra0|>", "<|extra_1|>")
"""Tokens that no turn writes, the first of which stands where visual tokens are; else the unknown token."""
NO_MATTER = ("pad_token_id", "bos_token_id", "eos_token_id", "dtype", "initializer_range", "use_cache", "layer_types")
_TOWERS = RENAMES[0][1]


class MoeLlava:
    """A Published (published.py)."""

    def load(self, directory: str, dtype: torch.dtype | None = None) -> tuple[VLM, VLMProcessor]:
        from vlmkit.processor import VLMProcessor

        architecture, tokenizer = self._read(directory)
        weights = to_ours(read_weights(directory), architecture.connector.kind)
        if dtype is None and (head := weights.get("language_model.lm_head.weight")) is not None:
            dtype = head.dtype
        if not has_tower(weights):
            weights |= tower_weights(directory, architecture.encoder)
        model = made_of(architecture, weights, directory, dtype or torch.float32)
        return model, VLMProcessor(tokenizer, architecture=architecture.to_dict())

    def described(self, directory: str) -> Architecture:
        return self._read(directory)[0]

    def _read(self, directory: str) -> tuple[Architecture, Any]:
        config = read_json(directory, "config.json")
        if not isinstance(config.get("mm_image_tower"), str):
            raise SpecError(
                f"{directory}: config.json.mm_image_tower: expected a directory or a name on a hub, got {config.get('mm_image_tower')!r}"
            )
        tokenizer = tokenizer_of(directory, config)
        tower = tower_at(directory, config["mm_image_tower"])
        return architecture_of(config, tower, tokenizer).validate(), tokenizer

    def config(self, architecture: Architecture, processor: VLMProcessor) -> dict[str, Any]:
        return config_of(architecture, processor)

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Files:
        """The published tokenizer has no part in images; turns are written by upstream's code."""
        return Files(placed(architecture), processor)

    def check(self, architecture: Architecture) -> None:
        """Everything was looked at where the config was made."""

    def export(self, model: VLM, processor: Files, config: dict[str, Any], directory: str) -> None:
        """Write a directory that upstream's class loads."""
        weights = to_theirs(model.state_dict())
        if processor.tower.published is None:
            theirs = {f"{TOWER}{name.removeprefix(_TOWERS)}" if name.startswith(_TOWERS) else name: one for name, one in weights.items()}
            weights = write_tower(directory, config["mm_image_tower"], processor.tower, theirs)
        write_json(directory, "config.json", config | {"torch_dtype": str(model.dtype).removeprefix("torch.")})
        model.generation_config.save_pretrained(directory)
        processor.ours.tokenizer.save_pretrained(directory)
        write_weights(directory, weights)


class Files:
    """What is written of a processor, and the tower beside it."""

    chat_template = None

    def __init__(self, tower: Tower, ours: VLMProcessor) -> None:
        self.tower, self.ours = tower, ours


def placed(architecture: Architecture) -> Tower:
    """The tower as it is written; upstream takes one for CLIP's by the beginning of its name."""
    tower = tower_of(architecture)
    return tower if tower.published else replace(tower, place=f"{CLIP}/{os.path.basename(tower.place)}")


def architecture_of(config: dict[str, Any], tower: Tower, tokenizer: Any) -> Architecture:
    """The parts that a published config describes with its tower. Raises SpecError for what vlmkit does not build."""
    seeing = {name: value for name, value in config.items() if name in FREE | FIXED.keys()}
    refuse_unknown("config.json", seeing, FIXED, FREE)
    words = language_model_of(config, FREE | FIXED.keys())
    encoder = encoder_of(config, tower)
    if (stated := config.get("mm_hidden_size", encoder.dim_out)) != encoder.dim_out:
        raise SpecError(f"config.json.mm_hidden_size: {stated} channels, but the tower {tower.place!r} gives {encoder.dim_out}")
    vocabulary = tokenizer.get_vocab()
    placeholder = next((token for token in PLACES if token in vocabulary), tokenizer.unk_token)
    if placeholder is None:
        raise SpecError(f"the tokenizer has neither {', '.join(PLACES)} nor an unknown token to stand where visual tokens are; add one")
    template = CURIOUS.replace(begin=added_around(tokenizer).before)
    return Architecture(
        name="moe-llava-phi",
        policy=policy_of(config, tower.images, encoder),
        encoder=encoder,
        connector=connector_of({"mm_projector_type": config.get("image_projector_type")}),
        layout=Run(template=template, placeholder=placeholder, after_image="\n"),
        fusion=Splice(),
        language_model=words.replace(experts=experts_of(config, words.config["num_hidden_layers"]), plain_head=True),
    )


def experts_of(config: dict[str, Any], layers: int) -> Experts:
    """Of the table `moe`. Raises SpecError for experts that vlmkit does not build."""
    moe = config.get("moe")
    if not isinstance(moe, dict) or (missing := [name for name in (*MOE, *MOE_READ) if name not in moe]):
        raise SpecError(f"config.json.moe: expected a table with {', '.join((*MOE, *MOE_READ))}, got {str(moe)[:80]}")
    assert not missing
    refuse_unknown("config.json.moe", moe, MOE, MOE_FREE)
    counts, numbers = moe["num_experts"], moe["moe_layers_idx"]
    if not all(isinstance(each, list) and each and all(type(one) is int for one in each) for each in (counts, numbers)):
        raise SpecError(f"config.json.moe: num_experts is {counts!r} and moe_layers_idx {numbers!r}; expected whole numbers, one a layer")
    if len(set(counts)) != 1 or len(counts) != len(numbers):
        raise SpecError(f"config.json.moe.num_experts: {counts} for {len(numbers)} layers is not built; expected one number for all")
    factors = {name: moe[name] for name in ("capacity_factor", "eval_capacity_factor", "router_aux_loss_coef")}
    for name, value in factors.items():
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise SpecError(f"config.json.moe.{name}: expected a number, got {value!r}")
    if 2 * factors["eval_capacity_factor"] < counts[0]:
        raise SpecError(
            f"config.json.moe.eval_capacity_factor: with {factors['eval_capacity_factor']} tokens pass an expert by in evaluation, which "
            f"is not built; expected {counts[0] / 2} or more"
        )
    found = Experts(
        count=counts[0],
        top=moe["top_k_experts"],
        layers=tuple(numbers),
        capacity=float(factors["capacity_factor"]),
        balance=float(factors["router_aux_loss_coef"]),
    )
    named = found.replace(layers="even")
    return named if named.numbers(layers) == found.numbers(layers) else found


def config_of(architecture: Architecture, processor: VLMProcessor) -> dict[str, Any]:
    """The inverse of `architecture_of`. Raises SpecError for an architecture that the published class cannot express."""
    words, text = architecture.language_model, architecture.language_model.transformers_config()
    if text.model_type != "phi" or words.experts is None or not words.plain_head:
        raise SpecError(
            f"{NAME} has experts in Phi and a head without bias, but the language model is {text.model_type!r} with "
            f"experts={words.experts} and plain_head={words.plain_head}"
        )
    if words.experts.top != 2 or words.experts.capacity is None:
        raise SpecError(f"{NAME} sends a token to 2 experts of bounded capacity, but here they are {words.experts}")
    if not isinstance(architecture.fusion, Splice) or not isinstance(architecture.layout, Run):
        raise SpecError(f"{NAME} splices a run of visual tokens, not {architecture.layout.kind!r} by {architecture.fusion.kind!r}")
    projector, tower = projector_type(architecture.connector), placed(architecture)
    encoder: Any = architecture.encoder
    numbers, rope = words.experts.numbers(text.num_hidden_layers), dict(text.rope_parameters)
    if rope.get("rope_type", "default") != "default":
        raise SpecError(f"{NAME} has rotary positions as they are, but they are {rope['rope_type']!r}")
    said = {name: getattr(text, name) for name in TEXT} | {
        "rope_theta": rope.get("rope_theta", 10000.0),
        "rope_scaling": None,
        "partial_rotary_factor": rope.get("partial_rotary_factor", getattr(text, "partial_rotary_factor", None)),
        "architectures": [NAME],
        "model_type": MODEL_TYPE,
        "image_projector_type": projector,
        "mm_hidden_size": encoder.width,
        "mm_image_tower": tower.place,
        "mm_video_tower": None,
        "mm_use_im_start_end": False,
        "mm_use_im_patch_token": False,
        "mm_vision_select_feature": "patch" if encoder.class_token == "drop" else "cls_patch",
        "mm_vision_select_layer": encoder.layer,
        "use_mm_proj": True,
        "moe": {
            "moe_enable": True,
            "moe_mode": "sparse" if words.experts.layers == "even" else "custom",
            "moe_layers_idx": list(numbers),
            "num_experts": [words.experts.count] * len(numbers),
            "ep_size": 1,
            "top_k_experts": words.experts.top,
            "capacity_factor": words.experts.capacity,
            "eval_capacity_factor": max(2.0, words.experts.count / 2),
            "min_capacity": 0,
            "use_residual": False,
            "router_aux_loss_coef": words.experts.balance,
            "train_modules": [],
        },
        **policy_fields(architecture.policy),
    }
    read = architecture_of(said, tower, processor.tokenizer)
    same = words.experts.replace(layers=numbers)
    if read.language_model.experts is None or read.language_model.experts.replace(layers=numbers) != same:
        raise SpecError(f"{NAME} would have {read.language_model.experts}, but here they are {words.experts}")
    plain = architecture.replace(encoder=encoder.replace(checkpoint=None, attention="sdpa"))
    refuse_other(NAME, plain, read.replace(encoder=read.encoder.replace(checkpoint=None)), NO_MATTER)
    return said


FAMILY = MoeLlava()
