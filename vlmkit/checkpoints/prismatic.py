"""Checkpoints of PrismaticForConditionalGeneration: Prismatic's models (Karamcheti et al. 2024, arXiv:2402.07865) in files of transformers.

The class is code beside the weights (prismatic/extern/hf of github.com/openvla/openvla), which is never run. What is written says in
`auto_map` where that code is. Its towers are timm's models by their names, made for images of one size, so towers of other numbers than
timm's cannot be written. Pixels are normalised by `tvf_normalize_params`, which that code reads back over `means` and `stds`: a converter
that ran in bfloat16 left 0.484375 there where `means` says 0.485.

Read and written beside that code's own weights, pixels, ids, logits and answers (tests/families/prismatic_upstream.json); no directory of
the hub was ever read, for there was no network. TRI-ML's own files (checkpoints/latest-checkpoint.pt) hold neither the towers' weights nor
a tokenizer and are not read: scripts/extern/convert_prismatic_weights_to_hf.py of the same repository makes these of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from vlmkit.architecture import Architecture, VisionTower
from vlmkit.checkpoints.agreement import refuse_other
from vlmkit.checkpoints.family import made_of
from vlmkit.checkpoints.prismatic_pixels import pixels_of, tower_of, towers_of
from vlmkit.checkpoints.prismatic_weights import to_ours, to_theirs
from vlmkit.checkpoints.published import read_json, read_weights, refuse_unknown, write_json, write_weights
from vlmkit.connectors.joined import Joined
from vlmkit.connectors.mlp import Mlp
from vlmkit.fusion.splice import Splice
from vlmkit.language_model import LanguageModel
from vlmkit.layout.opening import Opening
from vlmkit.layout.template import Template
from vlmkit.spec import SpecError
from vlmkit.zoo.prismatic import IN_OUT, VICUNA_V15

if TYPE_CHECKING:
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor

NAME = "PrismaticForConditionalGeneration"
CODE = "openvla/openvla-7b"
"""A repository of the hub that has the code of all three files."""
LANGUAGES: dict[str, tuple[str, Template]] = {
    "llama2-7b-pure": ("llama", IN_OUT),
    "llama2-13b-pure": ("llama", IN_OUT),
    "vicuna-v15-7b": ("llama", VICUNA_V15),
    "vicuna-v15-13b": ("llama", VICUNA_V15),
    "mistral-v0.1-7b-pure": ("mistral", IN_OUT),
}
"""`llm_backbone_id` -> the type of its config, and the turns that upstream's prompt builder writes for it."""
FUSED = {True: "no-align+fused-gelu-mlp", False: "no-align+gelu-mlp"}
"""`arch_specifier`, by whether there are two towers. Upstream's class does not read it."""
READ = frozenset({"image_sizes", "llm_backbone_id", "pad_token_id", "text_config", "timm_model_ids", "use_fused_vision_backbone"})
FREE = READ | frozenset(
    {
        *("_name_or_path", "arch_specifier", "architectures", "auto_map", "dtype", "hf_llm_id", "llm_max_length", "model_type"),
        *("pad_to_multiple_of", "timm_override_act_layers", "torch_dtype", "transformers_version", "vision_backbone_id"),
    }
)
FIXED: dict[str, Any] = {"image_resize_strategy": "resize-naive", "output_projector_states": False}
"""What a config has to say of what is built: other strategies pad or cut as torchvision rounds."""
NO_MATTER = ("dtype", "initializer_range", "use_cache", "attention_dropout", "pretraining_tp")


class Prismatic:
    """A Published (published.py)."""

    def load(self, directory: str, dtype: torch.dtype | None = None) -> tuple[VLM, VLMProcessor]:
        from vlmkit.processor import VLMProcessor

        architecture, tokenizer = self._read(directory)
        weights = to_ours(read_weights(directory), architecture)
        model = made_of(architecture, weights, directory, next(iter(weights.values())).dtype if dtype is None else dtype)
        return model, VLMProcessor(tokenizer, architecture=architecture.to_dict())

    def described(self, directory: str) -> Architecture:
        return self._read(directory)[0]

    def _read(self, directory: str) -> tuple[Architecture, Any]:
        from vlmkit.tokenizer import load_tokenizer

        tokenizer = load_tokenizer(directory)
        config, pixels = (read_json(directory, name) for name in ("config.json", "preprocessor_config.json"))
        return architecture_of(config, pixels, tokenizer).validate(), tokenizer

    def config(self, architecture: Architecture, processor: VLMProcessor) -> dict[str, Any]:
        return config_of(architecture, processor)

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Files:
        """Upstream's processor takes prompts as they are and has no template."""
        return Files(pixels_of(architecture.towers), processor)

    def check(self, architecture: Architecture) -> None:
        """Everything was looked at where the config was made."""

    def export(self, model: VLM, processor: Files, config: dict[str, Any], directory: str) -> None:
        kind = str(model.dtype).removeprefix("torch.")
        write_json(directory, "config.json", config | {"torch_dtype": kind})
        processor.ours.tokenizer.save_pretrained(directory)
        said = read_json(directory, "tokenizer_config.json")
        # transformers 4.40, for which upstream's code is, has today's class under another name.
        write_json(directory, "tokenizer_config.json", said | _before_version_5(said))
        where = {"AutoImageProcessor": "PrismaticImageProcessor", "AutoProcessor": "PrismaticProcessor"}
        code = {"auto_map": {name: f"{CODE}--processing_prismatic.{cls}" for name, cls in where.items()}}
        write_json(directory, "preprocessor_config.json", processor.pixels | code)
        write_weights(directory, to_theirs(model.state_dict(), model.config.spec))


class Files:
    """What is written of a processor."""

    chat_template = None

    def __init__(self, pixels: dict[str, Any], ours: VLMProcessor) -> None:
        self.pixels, self.ours = pixels, ours


def _before_version_5(said: dict[str, Any]) -> dict[str, Any]:
    return {"tokenizer_class": "PreTrainedTokenizerFast"} if said.get("tokenizer_class") == "TokenizersBackend" else {}


def architecture_of(config: dict[str, Any], pixels: dict[str, Any], tokenizer: Any) -> Architecture:
    """The parts that a published config and processor describe. Raises SpecError for what vlmkit does not build."""
    from transformers import CONFIG_MAPPING

    refuse_unknown("config.json", config, FIXED, FREE)
    if missing := sorted({*READ, *FIXED} - config.keys()):
        raise SpecError(f"config.json states no {', '.join(missing)}")
    language = config["llm_backbone_id"]
    if language not in LANGUAGES:
        raise SpecError(f"config.json.llm_backbone_id: {language!r} is not built; expected one of {', '.join(LANGUAGES)}")
    model_type, template = LANGUAGES[language]
    text = config["text_config"]
    if not isinstance(text, dict) or text.get("model_type", model_type) != model_type:
        raise SpecError(f"config.json.text_config: expected the config of a {model_type!r}, as llm_backbone_id is {language!r}, got {text}")
    placeholder = tokenizer.convert_ids_to_tokens(config["pad_token_id"]) if isinstance(config["pad_token_id"], int) else None
    if not placeholder:
        raise SpecError(f"config.json.pad_token_id: {config['pad_token_id']!r} is no token of the tokenizer, which has {len(tokenizer)}")
    towers = towers_of(config, pixels)
    if len(towers) != (2 if config["use_fused_vision_backbone"] else 1):
        said = config["use_fused_vision_backbone"]
        raise SpecError(f"config.json.use_fused_vision_backbone is {said}, but timm_model_ids are {config['timm_model_ids']}")
    made = CONFIG_MAPPING[model_type](**{name: value for name, value in text.items() if name != "model_type"})
    words = LanguageModel.from_config(made)
    width = sum(tower.encoder.dim_out for tower in towers)
    first, *beside = towers
    return Architecture(
        name=f"prismatic-{language}",
        policy=first.policy,
        encoder=first.encoder,
        beside=tuple(beside),
        connector=Joined(inner=Mlp(depth=3, hidden=(4 * width, words.dim))) if beside else Mlp(depth=2),
        layout=Opening(template=template, placeholder=placeholder),
        fusion=Splice(),
        language_model=words,
    )


def config_of(architecture: Architecture, processor: VLMProcessor) -> dict[str, Any]:
    """The inverse of `architecture_of`. Raises SpecError for an architecture that the published class cannot express."""
    towers, layout = architecture.towers, architecture.layout
    if len(towers) > 2 or not isinstance(layout, Opening):
        raise SpecError(f"{NAME} has one or two towers and images in the 'opening', but these are {len(towers)} and {layout.kind!r}")
    said = [tower_of(tower) for tower in towers]
    text = architecture.language_model.transformers_config()
    language = next((name for name, wanted in LANGUAGES.items() if wanted == (text.model_type, layout.template)), None)
    if language is None:
        raise SpecError(f"{NAME} has none of its language models and their turns in {text.model_type!r} with {layout.template}")
    # 4.40, for which upstream's code is, states plain rope by one number.
    words, rope = text.to_diff_dict(), dict(text.rope_parameters)
    if rope.keys() != {"rope_theta", "rope_type"} or rope["rope_type"] != "default":
        raise SpecError(f"{NAME} has plain rope in its language model, but this one has {rope}")
    left_out = ("auto_map", "transformers_version", "dtype", "rope_parameters", "architectures", "_name_or_path")
    words = {name: value for name, value in words.items() if name not in left_out} | {"rope_theta": rope["rope_theta"]}
    fused = len(towers) == 2
    found = {
        **FIXED,
        "architectures": [NAME],
        "auto_map": {
            "AutoConfig": f"{CODE}--configuration_prismatic.PrismaticConfig",
            "AutoModelForVision2Seq": f"{CODE}--modeling_prismatic.{NAME}",
        },
        "model_type": "prismatic",
        # These two choose from tables whose entries the three lists below then replace.
        "vision_backbone_id": "dinosiglip-vit-so-384px" if fused else "siglip-vit-so400m-384px",
        "llm_backbone_id": language,
        "arch_specifier": FUSED[fused],
        "use_fused_vision_backbone": fused,
        "timm_model_ids": [each["id"] for each in said],
        "timm_override_act_layers": [each["activation"] for each in said],
        "image_sizes": [each["size"] for each in said],
        "llm_max_length": text.max_position_embeddings,
        "pad_token_id": processor.plain_tokenizer.specials[layout.placeholder],
        "pad_to_multiple_of": 64,
        "text_config": words | {"model_type": text.model_type},
    }
    read = architecture_of(found, pixels_of(towers), processor.tokenizer)
    for ours, theirs in zip(towers, read.towers, strict=True):
        refuse_other_tower(ours, theirs)
    same = read.replace(policy=architecture.policy, encoder=architecture.encoder, beside=architecture.beside)
    refuse_other(NAME, architecture, same, NO_MATTER)
    return found


def refuse_other_tower(ours: VisionTower, theirs: VisionTower) -> None:
    """Raise SpecError where a tower is another than the one that is read of what was written of it."""
    plain = theirs.encoder.replace(checkpoint=ours.encoder.checkpoint)  # type: ignore[attr-defined]
    if (ours.policy, ours.encoder) != (theirs.policy, plain):
        raise SpecError(f"{NAME} has {theirs.policy} before {plain}, but these are {ours.policy} and {ours.encoder}")


FAMILY = Prismatic()
