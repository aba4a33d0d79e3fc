"""The language model in a config of github.com/haotian-liu/LLaVA: its fields stand at the top, among those about images."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmkit.checkpoints.published import read_json
from vlmkit.language_model import LanguageModel
from vlmkit.spec import SpecError
from vlmkit.tokenizer import load_tokenizer

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

MODEL_TYPES = {"llava": "llama", "llava_llama": "llama", "llava_mistral": "mistral", "moe_llava_phi": "phi"}
"""`model_type` of the whole -> that of its language model."""
SIZES = (
    *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads"),
    *("hidden_act", "max_position_embeddings", "initializer_range", "rms_norm_eps", "use_cache", "tie_word_embeddings"),
    *("pad_token_id", "bos_token_id", "eos_token_id", "attention_dropout"),
)
OWN = {"llama": ("attention_bias", "pretraining_tp"), "mistral": ("sliding_window",), "phi": ("partial_rotary_factor",)}
ELSEWHERE = frozenset(
    {
        *("_name_or_path", "architectures", "auto_map", "dtype", "model_type", "torch_dtype", "transformers_version"),
        *("max_length", "max_sequence_length", "_flash_attn_2_enabled", "_attn_implementation"),
    }
)
"""Fields that say nothing of the model, or what generation_config.json says."""


def language_model_of(config: dict[str, Any], about_images: Collection[str]) -> LanguageModel:
    """Raises SpecError naming a field that says something and is none of the language model's."""
    from transformers import CONFIG_MAPPING

    model_type = MODEL_TYPES[config["model_type"]]
    told = {name: value for name, value in config.items() if name not in about_images and name not in ELSEWHERE}
    if told.get("rope_scaling") is None:
        told.pop("rope_scaling", None)
    known = CONFIG_MAPPING[model_type]().to_dict().keys() | {"rope_theta", "rope_scaling", "pretraining_tp", *OWN[model_type]}
    for name, value in told.items():
        if name not in known and value is not None:
            raise SpecError(f"config.json.{name}: {value!r} is no field of {model_type!r}, nor one about images that vlmkit knows")
    if missing := [name for name in SIZES[:5] if name not in told]:
        raise SpecError(f"config.json states no {', '.join(missing)}")
    try:
        made = CONFIG_MAPPING[model_type](**{name: value for name, value in told.items() if name in known})
    except (TypeError, ValueError, KeyError) as error:
        raise SpecError(f"config.json: {' '.join(str(error).split())}") from None
    return LanguageModel.from_config(made)


def tokenizer_of(directory: str, config: dict[str, Any]) -> PreTrainedTokenizerBase:
    """The language model's tokenizer, whatever the whole is called. One that does not say whether it is `legacy` is: so it was with
    transformers 4, which upstream runs under, and is no longer."""
    from transformers import CONFIG_MAPPING

    place = Path(directory, "tokenizer_config.json")
    said = read_json(directory, place.name) if place.exists() else {}
    options: dict[str, Any] = {"legacy": True} if said.get("legacy") is None and Path(directory, "tokenizer.model").exists() else {}
    return load_tokenizer(directory, config=CONFIG_MAPPING[MODEL_TYPES[config["model_type"]]](), **options)


def text_fields(text: PretrainedConfig) -> dict[str, Any]:
    """The inverse, as transformers 4 read it. Raises SpecError for rotary positions that it did not have."""
    rope = dict(text.rope_parameters)
    kind, theta, factor = rope.get("rope_type", "default"), rope.get("rope_theta", 10000.0), rope.get("factor")
    if kind not in ("default", "linear", "dynamic"):
        raise SpecError(f"LlavaLlamaForCausalLM has rotary positions as they are, or 'linear' or 'dynamic' ones, but they are {kind!r}")
    said = {name: getattr(text, name) for name in SIZES}
    said |= {name: getattr(text, name, 1) for name in OWN[text.model_type]}
    return said | {"rope_theta": theta, "rope_scaling": None if kind == "default" else {"type": kind, "factor": factor}}
