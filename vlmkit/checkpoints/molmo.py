"""Checkpoints of MolmoForCausalLM: MolmoE-1B, Molmo-7B-D, -7B-O and -72B (arXiv:2409.17146).

The class is no part of transformers but lies beside the weights on the hub, and code that lies there is never run. So vlmkit reads the
weights itself. Their config states the language model; of the tower it states nothing, so that is read from the shapes of its weights, and
its heads from `vision_backbone` where that is there, by upstream's names (olmo/config.py of github.com/allenai/molmo).

MolmoE-1B's class is another one of the same name, with another config: molmo_experts.py.

Written and read here, with weights beside upstream's own class in the names of its state dict; no directory of the hub was ever read, for
there was no network.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.family import made_of
from vlmkit.checkpoints.molmo_experts import as_others, as_sparse, is_sparse
from vlmkit.checkpoints.molmo_weights import EMBEDDINGS, PREFIX, RESBLOCK, VISION, to_ours, to_theirs
from vlmkit.checkpoints.published import read_json, read_weights, refuse_unknown, write_json, write_weights
from vlmkit.connectors.attention_pool import AttentionPool
from vlmkit.encoders.clip import Clip
from vlmkit.language_model import LanguageModel
from vlmkit.preprocess.policies.multicrop import MultiCrop
from vlmkit.spec import Settings, SpecError

if TYPE_CHECKING:
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor

PREPROCESSOR = "preprocessor_config.json"
NUMBERS = {
    "hidden_size": "hidden_size",
    "num_hidden_layers": "num_hidden_layers",
    "num_attention_heads": "num_attention_heads",
    "num_key_value_heads": "num_key_value_heads",
    "max_position_embeddings": "max_position_embeddings",
    "rope_theta": "rope_theta",
    "rms_norm_eps": "layer_norm_eps",
}
"""Settings of the language model -> fields of the published config."""
BLOCKS = {"qwen2": (True, False, False), "olmo2": (False, True, True), "olmoe": (False, True, False)}
"""Type of the language model -> qkv_bias, attention_layer_norm, norm_after of the published config."""
FIXED = {"clip_qkv": None, "layer_norm_type": "rms", "tie_word_embeddings": False, "use_position_ids": True, "weight_tying": False}
"""What a config says and vlmkit builds no other way."""
EXPERTS = ("num_experts", "num_experts_per_tok")
Shape = Callable[[str], tuple[int, ...]]


class Molmo:
    """A Published (published.py)."""

    def load(self, directory: str, dtype: torch.dtype | None = None) -> tuple[VLM, VLMProcessor]:
        """Model and processor of a published directory, in its own dtype unless another is asked for. Raises SpecError for what vlmkit
        does not build, and listing keys that are missing or unexpected."""
        from vlmkit.processor import VLMProcessor
        from vlmkit.tokenizer import load_tokenizer

        architecture, theirs = self.described(directory).validate(), read_weights(directory)
        kind = next(iter(theirs.values())).dtype if dtype is None else dtype
        model = made_of(architecture, to_ours(theirs, architecture), directory, kind)
        return model, VLMProcessor(load_tokenizer(directory), architecture=architecture.to_dict())

    def described(self, directory: str) -> Architecture:
        """The architecture of a published directory, of which no weights are read but their shapes. Raises SpecError."""
        from vlmkit.stored import Stored, files_of
        from vlmkit.tokenizer import load_tokenizer

        if not (files := files_of(Path(directory))):
            raise SpecError(f"{directory} holds no safetensors files, of which alone vlmkit reads Molmo; convert the weights")
        stored = Stored(files)
        names = {name.removeprefix(PREFIX): name for name in stored.names()}
        config, pixels = (read_json(directory, name) for name in ("config.json", PREPROCESSOR))

        def shape(name: str) -> tuple[int, ...]:
            if name not in names:
                raise SpecError(f"{directory} is not complete: missing {name}")
            return stored.shape(names[name])

        end = str(load_tokenizer(directory).eos_token)
        tokens = {"tokenizer": directory} | _ids(load_tokenizer(directory))
        return described(config, pixels, shape, [*names], end, tokens)

    def config(self, architecture: Architecture, processor: VLMProcessor) -> dict[str, Any]:
        """What config.json says. Raises SpecError for an architecture that the published class cannot express."""
        from vlmkit.config import VLMConfig
        from vlmkit.model import VLM

        config, pixels = stated(architecture)
        with torch.device("meta"):
            model = VLM(VLMConfig(architecture=architecture.to_dict()))
        weights = to_theirs(model.state_dict(), architecture)
        shapes = {name.removeprefix(PREFIX): tuple(value.shape) for name, value in weights.items()}
        refuse_other(architecture, described(config, pixels, shapes.__getitem__, [*shapes], architecture.layout.template.stop, {}))
        return config

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Files:
        return Files(stated(architecture)[1], processor)

    def check(self, architecture: Architecture) -> None:
        """`config` compared what comes back of it."""

    def export(self, model: VLM, processor: Files, config: dict[str, Any], directory: str) -> None:
        """Write a directory that MolmoForCausalLM loads where its code is put beside it."""
        os.makedirs(directory, exist_ok=True)
        write_weights(directory, to_theirs(model.state_dict(), model.config.spec))
        processor.tokenizer.save_pretrained(directory)
        write_json(directory, "config.json", config | {"torch_dtype": str(model.dtype).removeprefix("torch.")})
        write_json(directory, PREPROCESSOR, processor.pixels)


class Files:
    """What stands for the published processor, whose prompt has no chat template."""

    chat_template = None

    def __init__(self, pixels: dict[str, Any], processor: VLMProcessor) -> None:
        self.pixels = pixels
        self.tokenizer = processor.tokenizer


def described(
    config: Mapping[str, Any], pixels: Mapping[str, Any], shape: Shape, names: list[str], end: str, tokens: Mapping[str, Any]
) -> Architecture:
    """The parts of a published config, preprocessor config and weights. `tokens`: the tokenizer's place and ids. Raises SpecError."""
    from vlmkit.zoo.molmo import MOLMO_7B_D, ROLES

    sparse = is_sparse(config)
    config = as_others(config) if sparse else config
    refuse_unknown("config.json", {name: config[name] for name in FIXED if name in config}, FIXED, ())
    form = tuple(bool(config.get(name)) for name in ("qkv_bias", "attention_layer_norm", "norm_after"))
    model_type = next((name for name, has in BLOCKS.items() if has == form), None)
    if model_type is None or sparse != (model_type == "olmoe"):
        raise SpecError(
            f"qkv_bias={form[0]}, attention_layer_norm={form[1]}, norm_after={form[2]}, {'with' if sparse else 'without'} experts: vlmkit "
            "builds Molmo over Qwen2 (True, False, False), OLMo 2 (False, True, True) and OLMoE (False, True, False, with experts)"
        )
    width, values = shape(f"{VISION}image_vit.patch_embedding.weight")
    patch = math.isqrt(values // 3)
    side = math.isqrt(shape(f"{VISION}image_vit.positional_embedding")[0] - 1)
    blocks = 1 + max(int(name.removeprefix(RESBLOCK[0]).partition(".")[0]) for name in names if name.startswith(RESBLOCK[0]))
    heads = config.get("vision_backbone", {}).get("image_num_heads", 16)
    margins = pixels.get("overlap_margins", (4, 4))
    if margins[0] != margins[1]:
        raise SpecError(f"overlap_margins: expected as many patches on both sides, got {margins}")
    rows, dim = shape(EMBEDDINGS[0])
    settings = {ours: config[theirs] for ours, theirs in NUMBERS.items() if config.get(theirs) is not None}
    settings |= {"vocab_size": rows, "hidden_size": dim, "intermediate_size": config["intermediate_size"] // 2}
    if sparse:
        settings |= {"num_key_value_heads": config.get("n_kv_heads") or config["num_attention_heads"], "norm_topk_prob": False}
        settings |= {name: config[name] for name in EXPERTS}
    settings |= {name: value for name, value in tokens.items() if name != "tokenizer"}
    return MOLMO_7B_D.replace(
        name=str(config.get("_name_or_path") or "molmo"),
        policy=MultiCrop(
            size=pixels.get("base_image_input_size", (336, 336))[0], margin=margins[0] * patch, crops=pixels.get("max_crops", 12)
        ),
        encoder=Clip(
            width=width,
            layers=blocks + 1,
            heads=heads,
            mlp=shape(f"{RESBLOCK[0]}0.feed_forward.w1.weight")[0],
            patch=patch,
            image_size=side * patch,
            layer=tuple(blocks + 1 + layer for layer in config.get("vit_layers", (-2, -9))),
            kept_blocks=blocks,
            padding="next",
        ),
        connector=AttentionPool(
            heads=heads, width=shape(f"{VISION}image_pooling_2d.wq.weight")[0], hidden=shape(f"{VISION}image_projector.w1.weight")[0]
        ),
        layout=MOLMO_7B_D.layout.replace(template=ROLES.replace(begin=end, assistant=(ROLES.assistant[0], end))),
        language_model=LanguageModel(
            model_type=model_type, tokenizer=tokens.get("tokenizer"), config=Settings(settings), unspoken=shape(EMBEDDINGS[1])[0]
        ),
    )


def stated(spec: Architecture) -> tuple[dict[str, Any], dict[str, Any]]:
    """The published config and preprocessor config. Raises SpecError for parts that Molmo does not have."""
    from vlmkit.zoo.molmo import MOLMO_7B_D

    encoder, policy, words = spec.encoder, spec.policy, spec.language_model
    strange = [f"{part} {kind!r}" for part, kind in spec.kinds().items() if part != "language model" and kind != MOLMO_7B_D.kinds()[part]]
    if strange or words.model_type not in BLOCKS:
        raise SpecError(f"MolmoForCausalLM has no {', '.join(strange) or f'language model of type {words.model_type!r}'}")
    assert isinstance(encoder, Clip)
    assert isinstance(policy, MultiCrop)
    theirs: Any = words.transformers_config()
    bias, normed, behind = BLOCKS[words.model_type]
    config = {
        "architectures": ["MolmoForCausalLM"],
        "model_type": "molmo",
        "vocab_size": words.vocabulary,
        "embedding_size": words.vocabulary,
        "intermediate_size": 2 * theirs.intermediate_size,
        "layer_norm_type": "rms",
        "qkv_bias": bias,
        "attention_layer_norm": normed,
        "norm_after": behind,
        "tie_word_embeddings": False,
        "weight_tying": False,
        "use_position_ids": True,
        "clip_qkv": None,
        "vit_layers": [depth - encoder.blocks - 1 for depth in encoder.depths],
        "vision_backbone": _tower(encoder),
    }
    rope = getattr(theirs, "rope_parameters", None) or {}
    config |= {published: getattr(theirs, ours, None) for ours, published in NUMBERS.items() if ours != "rope_theta"}
    config["rope_theta"] = rope.get("rope_theta", getattr(theirs, "rope_theta", None))
    if words.model_type == "olmoe":
        if theirs.norm_topk_prob:
            raise SpecError("MolmoForCausalLM sums experts by the router's own probabilities; it has no norm_topk_prob=True")
        config = as_sparse(config | {name: getattr(theirs, name) for name in EXPERTS}, words.unspoken)
    side = policy.size // (encoder.patch * 2)
    pixels = {
        "base_image_input_size": [policy.size, policy.size],
        "image_patch_size": encoder.patch,
        "image_token_length_h": side,
        "image_token_length_w": side,
        "image_padding_mask": True,
        "max_crops": policy.crops,
        "overlap_margins": [policy.margin // encoder.patch] * 2,
        "image_mean": list(encoder.mean),
        "image_std": list(encoder.std),
    }
    return config, pixels


def _tower(encoder: Clip) -> dict[str, Any]:
    """What MolmoE-1B's config says of its tower; the class of the others has it built in, and reads nothing of it."""
    side = encoder.image_size // encoder.patch
    return {
        "image_model_type": "openai",
        "image_default_input_size": [encoder.image_size, encoder.image_size],
        "image_patch_size": encoder.patch,
        "image_pos_patch_size": encoder.patch,
        "image_emb_dim": encoder.width,
        "image_num_heads": encoder.heads,
        "image_num_key_value_heads": encoder.heads,
        "image_head_dim": encoder.width // encoder.heads,
        "image_num_layers": encoder.blocks,
        "image_mlp_dim": encoder.mlp,
        "image_mlp_activations": encoder.activation,
        "image_num_pos": side * side + 1,
        "image_norm_eps": encoder.norm_eps,
    }


def refuse_other(spec: Architecture, found: Architecture) -> None:
    """Raise SpecError naming the parts of an architecture that come back otherwise from what was written of it."""
    same = {"checkpoint": None}
    ours = spec.replace(name="", encoder=spec.encoder.replace(**same)).to_dict()
    theirs = found.replace(name="", encoder=found.encoder.replace(**same)).to_dict()
    parts = [part for part in ours if part not in ("language_model", "schema") and ours[part] != theirs[part]]
    if parts:
        raise SpecError(f"MolmoForCausalLM cannot express the {', '.join(parts)} of {spec.name}; it has those of 'molmo-7b-d', in any size")


def _ids(tokenizer: Any) -> dict[str, Any]:
    """Ids that the language model's config states."""
    found = {"bos_token_id": tokenizer.eos_token_id, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return {name: value for name, value in found.items() if value is not None}


FAMILY = Molmo()
