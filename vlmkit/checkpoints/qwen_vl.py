"""Checkpoints of QWenLMHeadModel with eyes: Qwen-VL and Qwen-VL-Chat (arXiv:2308.12966).

The class is code beside the weights (modeling_qwen.py, visual.py and tokenization_qwen.py of Qwen/Qwen-VL), which is never run. What is
written says in `auto_map` where that code is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vlmkit.architecture import Architecture
from vlmkit.checkpoints.agreement import refuse_other
from vlmkit.checkpoints.family import made_of
from vlmkit.checkpoints.published import read_json, read_weights, refuse_unknown, write_json, write_weights
from vlmkit.checkpoints.qwen_vl_weights import to_ours, to_theirs
from vlmkit.connectors.resampler import Resampler
from vlmkit.encoders.open_clip import OpenClip
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import SpecError
from vlmkit.tiktoken_files import QWEN
from vlmkit.zoo.qwen_vl import BIGG_448, QWEN_7B, QWEN_VL, QWEN_VL_CHAT

if TYPE_CHECKING:
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor

NAME = "QWenLMHeadModel"
CODE = {"raw": "Qwen/Qwen-VL", "chatml": "Qwen/Qwen-VL-Chat"}
"""Where the class lies, by the form of conversations that generation_config.json states as `chat_format`."""
LAYOUTS = {"raw": QWEN_VL.layout, "chatml": QWEN_VL_CHAT.layout}
STOPS = {"raw": ["<|endoftext|>"], "chatml": ["<|im_end|>", "<|im_start|>"]}
"""Tokens that end an answer."""
TABLE = 16
"""Patches along each side of the tower's table of positions, whatever its images."""
FIXED: dict[str, Any] = {
    "attn_dropout_prob": 0.0,
    "emb_dropout_prob": 0.0,
    "no_bias": True,
    "rotary_pct": 1.0,
    "scale_attn_weights": True,
    "tie_word_embeddings": False,
}
"""What a config has to say of what is built."""
READ = frozenset(
    {
        *("hidden_size", "intermediate_size", "kv_channels", "layer_norm_epsilon", "num_attention_heads"),
        *("num_hidden_layers", "rotary_emb_base", "seq_length", "visual", "vocab_size"),
    }
)
"""What it has to say besides."""
FREE = READ | frozenset(
    {
        *("_name_or_path", "architectures", "auto_map", "bf16", "dtype", "fp16", "fp32", "initializer_range"),
        *("max_position_embeddings", "model_type", "onnx_safe", "softmax_in_fp32", "tokenizer_type", "torch_dtype"),
        *("transformers_version", "use_cache", "use_cache_kernel", "use_cache_quantization", "use_dynamic_ntk"),
        *("use_flash_attn", "use_logn_attn"),
    }
)
"""What it may say."""
NO_MATTER = ("pad_token_id", "bos_token_id", "eos_token_id", "dtype", "initializer_range", "use_cache", "max_window_layers", "layer_types")
"""Of the language model's config, what the published one does not tell, or tells elsewhere."""
VISUAL = ("heads", "image_size", "image_start_id", "layers", "mlp_ratio", "n_queries", "output_dim", "patch_size", "width")


class QwenVL:
    def load(self, directory: str, dtype: torch.dtype | None = None) -> tuple[VLM, VLMProcessor]:
        from vlmkit.processor import VLMProcessor

        architecture, tokenizer = self._read(directory)
        weights = to_ours(read_weights(directory), architecture)
        if dtype is None:
            dtype = weights["language_model.lm_head.weight"].dtype
        model = made_of(architecture, weights, directory, dtype)
        for name, value in _sampling(directory).items():
            setattr(model.generation_config, name, value)
        return model, VLMProcessor(tokenizer, architecture=architecture.to_dict())

    def described(self, directory: str) -> Architecture:
        return self._read(directory)[0]

    def _read(self, directory: str) -> tuple[Architecture, Any]:
        config = read_json(directory, "config.json")
        if "visual" not in config:
            raise SpecError(f"{directory}: config.json states no visual; a Qwen without eyes is a language model of its own")
        form = read_json(directory, "generation_config.json").get("chat_format")
        if form not in LAYOUTS:
            raise SpecError(f"{directory}: generation_config.json, chat_format: expected one of {', '.join(LAYOUTS)}, got {form!r}")
        tokenizer = QWEN.read(directory)
        return architecture_of(config, form, tokenizer).validate(), tokenizer

    def config(self, architecture: Architecture, processor: VLMProcessor) -> dict[str, Any]:
        return config_of(architecture, processor)

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Files:
        """The published tokenizer writes turns in its code, and has no template."""
        QWEN.lines(processor.tokenizer)
        return Files(form_of(architecture), processor)

    def check(self, architecture: Architecture) -> None:
        """Everything was looked at where the config was made."""

    def export(self, model: VLM, processor: Files, config: dict[str, Any], directory: str) -> None:
        spec, form = model.config.spec, processor.form
        write_json(directory, "config.json", config | {"torch_dtype": str(model.dtype).removeprefix("torch.")})
        sampling = {name: value for name in SAMPLING if (value := getattr(model.generation_config, name, None)) is not None}
        end = processor.ours.plain_tokenizer.specials[QWEN.end]
        said = {"chat_format": form, "max_window_size": 6144, "eos_token_id": end, "pad_token_id": end}
        write_json(directory, "generation_config.json", said | sampling)
        code = f"{CODE[form]}--tokenization_qwen.QWenTokenizer"
        told = {"model_max_length": 8192, "tokenizer_class": "QWenTokenizer", "auto_map": {"AutoTokenizer": [code, None]}}
        write_json(directory, "tokenizer_config.json", told)
        QWEN.write(processor.ours.tokenizer, directory)
        write_weights(directory, to_theirs(model.state_dict(), spec))


class Files:
    """What is written of a processor."""

    chat_template = None

    def __init__(self, form: str, ours: VLMProcessor) -> None:
        self.form, self.ours = form, ours


SAMPLING = ("do_sample", "top_p", "top_k", "temperature", "repetition_penalty", "max_new_tokens")


def _sampling(directory: str) -> dict[str, Any]:
    said = read_json(directory, "generation_config.json")
    return {name: said[name] for name in SAMPLING if name in said}


def architecture_of(config: dict[str, Any], form: str, tokenizer: Any) -> Architecture:
    """The parts that a published config describes. Raises SpecError for what vlmkit does not build."""
    visual = config["visual"]
    refuse_unknown("config.json", config, FIXED, FREE)
    refuse_unknown("config.json: visual", visual, {}, VISUAL)
    if missing := [*sorted({*READ, *FIXED} - config.keys()), *(f"visual.{name}" for name in sorted({*VISUAL} - {"n_queries", *visual}))]:
        raise SpecError(f"config.json states no {', '.join(missing)}")
    width, heads = config["hidden_size"], config["num_attention_heads"]
    if config["kv_channels"] * heads != width or visual["output_dim"] != width or visual["width"] == width:
        raise SpecError(
            f"config.json: {heads} heads of {config['kv_channels']} channels and a visual.output_dim of {visual['output_dim']} have to be "
            f"the hidden_size of {width}, and visual.width another number, which is {visual['width']}"
        )
    start = tokenizer.convert_tokens_to_ids("<img>")
    if visual["image_start_id"] != start:
        raise SpecError(f"config.json: visual.image_start_id is {visual['image_start_id']}, but <img> is the tokenizer's token {start}")
    settings = {
        "vocab_size": config["vocab_size"],
        "hidden_size": width,
        "intermediate_size": config["intermediate_size"] // 2,
        "num_hidden_layers": config["num_hidden_layers"],
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "max_position_embeddings": config["seq_length"],
        "rope_theta": float(config["rotary_emb_base"]),
        "rms_norm_eps": config["layer_norm_epsilon"],
        "eos_token_id": stops_of(form, tokenizer),
        "pad_token_id": tokenizer.pad_token_id,
    }
    return Architecture(
        name=f"qwen-vl-{form}",
        policy=Squash(size=visual["image_size"]),
        encoder=BIGG_448.replace(
            width=visual["width"],
            layers=visual["layers"],
            heads=visual["heads"],
            mlp_ratio=visual["mlp_ratio"],
            patch=visual["patch_size"],
            image_size=TABLE * visual["patch_size"],
        ),
        connector=Resampler(side=round(visual.get("n_queries", 256) ** 0.5), heads=width // 128),
        layout=LAYOUTS[form],
        fusion=Splice(),
        language_model=LanguageModel(model_type="qwen2", config=QWEN_7B.config | settings),
    )


def stops_of(form: str, tokenizer: Any) -> int | list[int]:
    ids: list[int] = tokenizer.convert_tokens_to_ids(STOPS[form])
    return ids[0] if len(ids) == 1 else ids


def form_of(architecture: Architecture) -> str:
    """Raises SpecError for a layout that upstream's code does not write."""
    found = next((form for form, layout in LAYOUTS.items() if layout == architecture.layout), None)
    if found is None:
        raise SpecError(f"{NAME} writes {LAYOUTS['chatml']}, or images in a text that goes on, but the layout is {architecture.layout}")
    return found


def config_of(architecture: Architecture, processor: VLMProcessor) -> dict[str, Any]:
    """The inverse of `architecture_of`. Raises SpecError for an architecture that the published class cannot express."""
    encoder, connector, policy = architecture.encoder, architecture.connector, architecture.policy
    if not isinstance(encoder, OpenClip) or not isinstance(connector, Resampler):
        raise SpecError(
            f"{NAME} has 'open_clip' and a 'resampler', but the encoder is {encoder.kind!r} and the connector {connector.kind!r}"
        )
    if not isinstance(policy, Squash):
        raise SpecError(f"{NAME} squashes an image, but the policy is {policy}")
    form, text = form_of(architecture), architecture.language_model.transformers_config()
    if text.model_type != "qwen2":
        raise SpecError(f"{NAME} has Qwen1, which is 'qwen2' here, but the language model is {text.model_type!r}")
    said = {
        **FIXED,
        "architectures": [NAME],
        "auto_map": {
            "AutoConfig": f"{CODE[form]}--configuration_qwen.QWenConfig",
            "AutoModelForCausalLM": f"{CODE[form]}--modeling_qwen.{NAME}",
        },
        "model_type": "qwen",
        "tokenizer_type": "QWenTokenizer",
        "hidden_size": text.hidden_size,
        "intermediate_size": 2 * text.intermediate_size,
        "kv_channels": text.hidden_size // text.num_attention_heads,
        "layer_norm_epsilon": text.rms_norm_eps,
        "num_attention_heads": text.num_attention_heads,
        "num_hidden_layers": text.num_hidden_layers,
        "rotary_emb_base": round(text.rope_parameters["rope_theta"]),
        "seq_length": text.max_position_embeddings,
        "max_position_embeddings": max(8192, text.max_position_embeddings),
        "use_dynamic_ntk": True,
        "use_logn_attn": True,
        "use_flash_attn": False,
        "bf16": False,
        "fp16": False,
        "fp32": False,
        "initializer_range": text.initializer_range,
        "vocab_size": text.vocab_size,
        "visual": {
            "heads": encoder.heads,
            "image_size": policy.size,
            "image_start_id": processor.plain_tokenizer.specials["<img>"],
            "layers": encoder.layers,
            "mlp_ratio": encoder.mlp_ratio,
            "output_dim": text.hidden_size,
            "patch_size": encoder.patch,
            "width": encoder.width,
        },
    }
    refuse_other(NAME, architecture, architecture_of(said, form, processor.tokenizer), NO_MATTER)
    return said


FAMILY = QwenVL()
