"""Checkpoints of NVLM_D_Model: nvidia/NVLM-D-72B (Dai et al. 2024, arXiv:2409.11402).

The class is code beside the weights (modeling_nvlm_d.py, modeling_intern_vit.py), which is never run. What is written says in `auto_map`
where that code is. Weights keep their values; the tower's are cut and joined as `encoders/intern_vit_names.py` says, with the seven heads
that upstream's class adds to it. The published config turns the language model's positions by rope "dynamic", which changes nothing up to
`max_position_embeddings`: it is left out where a directory is read, and none is written. Nobody ran this on the published 177 GB; names of
all weights were compared with its index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.agreement import refuse_other
from vlmkit.checkpoints.family import made_of
from vlmkit.checkpoints.published import read_json, read_weights, refuse_unknown, write_json, write_weights
from vlmkit.connectors.mlp import Mlp
from vlmkit.connectors.pixel_shuffle import PixelShuffle
from vlmkit.encoders.intern_vit import InternViT
from vlmkit.encoders.intern_vit_names import from_opengvlab, to_opengvlab
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.preprocess.policies.tiles import Tiles
from vlmkit.spec import Settings, SpecError
from vlmkit.zoo.nvlm import NVLM_D_72B

if TYPE_CHECKING:
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor

NAME = "NVLM_D_Model"
CODE = "nvidia/NVLM-D-72B"
ADDED_HEADS = 7
"""Heads that upstream's class adds to those of the tower's config."""
FIXED: dict[str, Any] = {"dynamic_image_size": True, "ps_version": "v2", "template": "chatml"}
READ = frozenset(
    {
        *("downsample_ratio", "force_image_size", "llm_config", "max_dynamic_patch", "min_dynamic_patch", "select_layer"),
        *("use_thumbnail", "vision_config"),
    }
)
FREE = READ | frozenset(
    {
        *("_commit_hash", "architectures", "auto_map", "dtype", "model_type", "torch_dtype", "transformers_version"),
        *("use_backbone_lora", "use_llm_lora"),
    }
)
VISION: dict[str, Any] = {"norm_type": "rms_norm", "qk_normalization": True, "qkv_bias": False, "num_channels": 3}
"""What the tower's config has to say: upstream's class has nothing else, whatever is said."""
SIZES = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "mlp": "intermediate_size",
    "patch": "patch_size",
    "activation": "hidden_act",
    "norm_eps": "layer_norm_eps",
}
"""Fields of `intern_vit` under upstream's names."""
TEXT = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("max_position_embeddings", "rms_norm_eps", "tie_word_embeddings", "bos_token_id", "eos_token_id"),
)
"""Fields of the language model's config that are read and written; its rope besides."""
NO_MATTER = ("pad_token_id", "dtype", "initializer_range", "use_cache", "max_window_layers", "layer_types", "use_sliding_window")


class NVLM:
    def load(self, directory: str, dtype: torch.dtype | None = None) -> tuple[VLM, VLMProcessor]:
        from vlmkit.processor import VLMProcessor

        architecture, tokenizer = self.described(directory), tokenizer_of(directory)
        weights = to_ours(read_weights(directory), architecture)
        model = made_of(architecture, weights, directory, next(iter(weights.values())).dtype if dtype is None else dtype)
        return model, VLMProcessor(tokenizer, architecture=architecture.to_dict())

    def described(self, directory: str) -> Architecture:
        return architecture_of(read_json(directory, "config.json"), tokenizer_of(directory)).validate()

    def config(self, architecture: Architecture, processor: VLMProcessor) -> dict[str, Any]:
        return config_of(architecture, processor)

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Files:
        """The published tokenizer has no part in images; turns are written by the code."""
        return Files(processor)

    def check(self, architecture: Architecture) -> None:
        """Everything was looked at where the config was made."""

    def export(self, model: VLM, processor: Files, config: dict[str, Any], directory: str) -> None:
        kind = str(model.dtype).removeprefix("torch.")
        write_json(directory, "config.json", config | {"torch_dtype": kind})
        processor.ours.tokenizer.save_pretrained(directory)
        write_weights(directory, to_theirs(model.state_dict(), model.config.spec))


class Files:
    """What is written of a processor."""

    chat_template = None

    def __init__(self, ours: VLMProcessor) -> None:
        self.ours = ours


def tokenizer_of(directory: str) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(directory, trust_remote_code=False)


def architecture_of(config: dict[str, Any], tokenizer: Any) -> Architecture:
    """The parts that a published config describes. Raises SpecError for what vlmkit does not build."""
    refuse_unknown("config.json", config, FIXED, FREE)
    if missing := sorted({*READ, *FIXED} - config.keys()):
        raise SpecError(f"config.json states no {', '.join(missing)}")
    vision, text, size = config["vision_config"], config["llm_config"], config["force_image_size"]
    wrong = [f"vision_config.{name} is {vision.get(name)!r}" for name, wanted in VISION.items() if vision.get(name, wanted) != wanted]
    if (text.get("architectures") or [None])[0] != "Qwen2ForCausalLM":
        wrong.append(f"llm_config.architectures is {text.get('architectures')!r}, not Qwen2ForCausalLM")
    ratio = round(1 / config["downsample_ratio"])
    if size != vision["image_size"] or ratio * config["downsample_ratio"] != 1:
        wrong.append(f"force_image_size is {size} beside {vision['image_size']}, downsample_ratio {config['downsample_ratio']}")
    if (text.get("rope_scaling") or {"type": "dynamic"}).get("type") != "dynamic":
        wrong.append(f"llm_config.rope_scaling is {text['rope_scaling']}")
    if wrong:
        raise SpecError(f"config.json: {'; '.join(wrong)}: that is not built")
    layer = config["select_layer"]
    return Architecture(
        name="nvlm-d",
        policy=Tiles(size=size, least=config["min_dynamic_patch"], most=config["max_dynamic_patch"], thumbnail=config["use_thumbnail"]),
        encoder=InternViT(
            image_size=size,
            layer=layer,
            keep_unused=layer not in (-1, vision["num_hidden_layers"]),
            **{ours: vision[theirs] for ours, theirs in SIZES.items()},
        ),
        connector=PixelShuffle(ratio=ratio, inner=Mlp(norm_in="layer_norm", hidden=text["intermediate_size"], bias=False)),
        layout=NVLM_D_72B.layout,
        fusion=Splice(),
        language_model=LanguageModel(
            model_type="qwen2",
            config=Settings(
                **{name: text[name] for name in TEXT}, rope_theta=float(text["rope_theta"]), pad_token_id=tokenizer.pad_token_id
            ),
        ),
    )


def config_of(architecture: Architecture, processor: VLMProcessor) -> dict[str, Any]:
    """The inverse of `architecture_of`. Raises SpecError for an architecture that the published class cannot express."""
    encoder, connector, policy = architecture.encoder, architecture.connector, architecture.policy
    if not isinstance(encoder, InternViT) or not isinstance(connector, PixelShuffle):
        raise SpecError(f"{NAME} has 'intern_vit' and a 'pixel_shuffle', but the encoder is {encoder} and the connector {connector}")
    if not isinstance(policy, Tiles):
        raise SpecError(f"{NAME} cuts an image into 'tiles', but the policy is {policy}")
    if isinstance(encoder.layer, tuple) or not encoder.whole:
        raise SpecError(
            f"{NAME} reads one layer and has the weights of all; use one of them and keep_unused=True, the encoder is {encoder}"
        )
    text = architecture.language_model.transformers_config()
    if text.model_type != "qwen2":
        raise SpecError(f"{NAME} has 'qwen2', but the language model is {text.model_type!r}")
    said = {
        **FIXED,
        "architectures": [NAME],
        "auto_map": {
            "AutoConfig": f"{CODE}--configuration_nvlm_d.NVLM_D_Config",
            "AutoModel": f"{CODE}--modeling_nvlm_d.{NAME}",
            "AutoModelForCausalLM": f"{CODE}--modeling_nvlm_d.{NAME}",
        },
        "model_type": "NVLM_D",
        "downsample_ratio": 1 / connector.ratio,
        "force_image_size": policy.size,
        "min_dynamic_patch": policy.least,
        "max_dynamic_patch": policy.most,
        "use_thumbnail": policy.thumbnail,
        "select_layer": encoder.layer,
        "vision_config": {
            **VISION,
            "architectures": ["InternVisionModel"],
            "model_type": "intern_vit_6b",
            "image_size": encoder.image_size,
            "attention_dropout": 0.0,
            "drop_path_rate": 0.0,
            "dropout": 0.0,
            **{theirs: getattr(encoder, ours) for ours, theirs in SIZES.items()},
        },
        "llm_config": {
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "attention_bias": True,
            "hidden_act": text.hidden_act,
            "rope_theta": text.rope_parameters["rope_theta"],
            "rope_scaling": None,
            **{name: getattr(text, name) for name in TEXT},
        },
    }
    read = architecture_of(said, processor.tokenizer)
    assert isinstance(read.encoder, InternViT)
    # Of the encoder, what no config tells.
    plain = encoder.replace(checkpoint=None, keep_unused=read.encoder.keep_unused, scale=read.encoder.scale)
    refuse_other(NAME, architecture.replace(encoder=plain), read, NO_MATTER)
    return said


def to_ours(weights: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """Published weights under vlmkit's names. Raises SpecError where heads that were added to the tower give something."""
    encoder = architecture.encoder
    assert isinstance(encoder, InternViT)
    seen = {name.removeprefix("vision_model."): value for name, value in weights.items() if name.startswith("vision_model.")}
    found = {f"encoder.{name}": value.contiguous() for name, value in from_opengvlab(seen, encoder.width).items()}
    for name, value in weights.items():
        if name.startswith("mlp1."):
            found[f"connector.inner.layers.{name.removeprefix('mlp1.')}"] = value
        elif not name.startswith("vision_model."):
            found[name] = value
    return found


def to_theirs(weights: dict[str, Tensor], architecture: Architecture) -> dict[str, Tensor]:
    """The inverse, with room for the added heads."""
    encoder = architecture.encoder
    assert isinstance(encoder, InternViT)
    seen = {name.removeprefix("encoder."): value for name, value in weights.items() if name.startswith("encoder.")}
    added = ADDED_HEADS * (encoder.width // encoder.heads)
    found = {f"vision_model.{name}": value for name, value in to_opengvlab(seen, added).items()}
    for name, value in weights.items():
        if name.startswith("connector."):
            found[f"mlp1.{name.removeprefix('connector.inner.layers.')}"] = value
        elif not name.startswith("encoder."):
            found[name] = value
    return found


FAMILY = NVLM()
