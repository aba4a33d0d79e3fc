"""OmniVLM's pairs of GGUF files: a language model, and a projector with its tower (Nexa AI 2024, arXiv:2412.11475).

Read is a directory with one file of architecture `qwen2` and one of architecture `siglip`, in any types that the gguf package undoes
(`pip install 'vlmkit[gguf]'`); a repository that holds several quantisations is several pairs, and one of them belongs in a directory of
its own. The model is float32 where matrices are, or where they lie in blocks of few bits, else float16 or bfloat16 as they are. Written
are matrices in the model's type and all else in float32, as the published scripts do (NexaAI/llama.cpp, examples/omni-vlm); kernels of the
patches too where the type is bfloat16, in which ggml convolves nothing. The pooling head, for which the published runner asks without
using it, is left out where a pair is read, and written as zeros.

A pair does not say how it was asked: the layout is that of `vlm-81-instruct` and `nano-vlm-instruct`. The latter's 729 tokens are a fold
of one. `vlm-81-ocr` puts the image between <|ocr_start|> and <|ocr_end|>, and no question: replace the layout for it. Pairs are read from
directories, and never fetched: nobody ran this on the published files, for there was no network.
"""

from __future__ import annotations

import math
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from vlmkit.architecture import Architecture
from vlmkit.checkpoint_files import MOST_LAYERS
from vlmkit.checkpoints.agreement import refuse_other
from vlmkit.checkpoints.family import made_of, say_left_out
from vlmkit.checkpoints.omnivlm_names import HEAD, head_shapes, theirs_of
from vlmkit.connectors.sequence_fold import SequenceFold
from vlmkit.encoders.siglip import Siglip
from vlmkit.gguf_files import GgufFile, Header, write_gguf
from vlmkit.gguf_tokenizer import KEY, read_tokenizer, tokenizer_fields
from vlmkit.language_model import LanguageModel
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.sliced import bare_of
from vlmkit.spec import Settings, SpecError
from vlmkit.zoo.omnivlm import OMNIVLM

if TYPE_CHECKING:
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor

NAME = "OmniVLM's pair of GGUF files"
PROJECTOR, LANGUAGE = "siglip", "qwen2"
"""`general.architecture` of either."""
FOLDS = (1, 9)
"""Tokens side by side of `nano-vlm-instruct` and of `vlm-81-instruct`; the published runner has no others."""
FLAG = "siglip.has_omni_vlm_projector"
VISION = {
    "width": "siglip.vision.embedding_length",
    "layers": "siglip.vision.block_count",
    "heads": "siglip.vision.attention.head_count",
    "mlp": "siglip.vision.feed_forward_length",
    "patch": "siglip.vision.patch_size",
    "image_size": "siglip.vision.image_size",
}
"""Fields of `siglip` -> fields of the projector's file."""
COLOURS = {"mean": "siglip.vision.image_mean", "std": "siglip.vision.image_std"}
WHOLE = {
    "max_position_embeddings": "qwen2.context_length",
    "hidden_size": "qwen2.embedding_length",
    "num_hidden_layers": "qwen2.block_count",
    "intermediate_size": "qwen2.feed_forward_length",
    "num_attention_heads": "qwen2.attention.head_count",
    "num_key_value_heads": "qwen2.attention.head_count_kv",
}
"""Settings of the language model -> fields of its file."""
REAL = {"rope_theta": "qwen2.rope.freq_base", "rms_norm_eps": "qwen2.attention.layer_norm_rms_epsilon"}
FREE = frozenset({FLAG, "siglip.vision.projection_dim", "siglip.use_gelu", "qwen2.vocab_size"})
"""What a file may state besides: the runner does not look at it, or shapes say it."""
TYPES = {torch.float32: ("F32", 0), torch.float16: ("F16", 1), torch.bfloat16: ("BF16", 32)}
"""The model's type -> what names of files say, and `general.file_type`."""
NO_MATTER = ("dtype", "initializer_range", "use_cache", "max_window_layers", "layer_types", "use_sliding_window", "sliding_window")
TOKENS = {"bos_token_id": "bos_token_id", "eos_token_id": "eos_token_id", "pad_token_id": "padding_token_id"}


class OmniVLM:
    """A Published (published.py)."""

    def load(self, directory: str, dtype: torch.dtype | None = None) -> tuple[VLM, VLMProcessor]:
        from vlmkit.processor import VLMProcessor

        projector, language = pair_in(directory)
        architecture = described(projector.header, language.header).validate()
        names = names_of(architecture)
        ours = {theirs: name for name, theirs in names.items()}
        held = {name: file for file in (projector, language) for name in file.tensors if not name.startswith(HEAD)}
        head = sum(math.prod(stored.shape) for name, stored in projector.tensors.items() if name.startswith(HEAD))
        say_left_out(directory, {HEAD.rstrip("."): head} if head else {})
        weights = {ours.get(name, name): file.read(name) for name, file in held.items()}
        if architecture.language_model.config["tie_word_embeddings"]:
            weights["language_model.lm_head.weight"] = weights["language_model.model.embed_tokens.weight"]
        kinds = [file.dtype(name) for name, file in held.items() if len(file.tensors[name].shape) == 2]
        model = made_of(architecture, weights, directory, reduce(torch.promote_types, kinds) if dtype is None else dtype)
        return model, VLMProcessor(read_tokenizer(language.fields), architecture=architecture.to_dict())

    def described(self, directory: str) -> Architecture:
        projector, language = pair_in(directory)
        return described(projector.header, language.header).validate()

    def config(self, architecture: Architecture, processor: VLMProcessor) -> tuple[dict[str, Any], dict[str, Any]]:
        """The fields of either file."""
        return fields_of(architecture, processor)

    def processor(self, architecture: Architecture, processor: VLMProcessor) -> Files:
        """The fields of the language model's file have the tokenizer; the runner writes turns in its code."""
        return Files()

    def check(self, architecture: Architecture) -> None:
        """Everything was looked at where the fields were made."""

    def export(self, model: VLM, processor: Files, config: tuple[dict[str, Any], dict[str, Any]], directory: str) -> None:
        """Raises SpecError for a type in which no pair is written."""
        if model.dtype not in TYPES:
            raise SpecError(f"{NAME} is written in {', '.join(map(str, TYPES))}, not in {model.dtype}; say which with dtype=")
        kind, number = TYPES[model.dtype]
        spec, tied = model.config.spec, model.config.spec.language_model.transformers_config().tie_word_embeddings
        eyes, words = dict[str, Tensor](), dict[str, Tensor]()
        weights = model.state_dict()
        for ours, theirs in names_of(spec).items():
            if ours == "language_model.lm_head.weight" and tied:
                continue
            value = weights[ours]
            kernel = value.ndim == 4 and model.dtype == torch.bfloat16
            held = words if ours.startswith("language_model.") else eyes
            held[theirs] = value.float() if value.ndim == 1 or kernel else value
        for name, shape in head_shapes(spec.encoder.width, spec.encoder.mlp).items():
            matrix = len(shape) == 2 and name.endswith(".weight")
            eyes[name] = torch.zeros(shape, dtype=model.dtype if matrix else torch.float32)
        Path(directory).mkdir(parents=True, exist_ok=True)
        for title, architecture, fields, tensors in (
            ("mmproj-omni-vlm", PROJECTOR, config[0], eyes),
            ("language-model", LANGUAGE, config[1], words),
        ):
            file = Path(directory) / f"{title}-{kind.lower()}.gguf"
            write_gguf(file, architecture, fields | {"general.file_type": number}, tensors)


class Files:
    """What stands for the published processor, which has no chat template."""

    chat_template = None


def pair_in(directory: str) -> tuple[GgufFile, GgufFile]:
    """The projector and the language model. Raises DamagedCheckpointError for a file that is none, SpecError for what is no pair."""
    found: dict[str, list[GgufFile]] = {PROJECTOR: [], LANGUAGE: []}
    for path in sorted(Path(directory).glob("*.gguf")):
        file = GgufFile(path)
        kind = file.fields.get("general.architecture")
        if kind not in found or (kind == PROJECTOR and file.fields.get(FLAG) is not True):
            raise SpecError(f"{path} is of architecture {kind!r}: read is OmniVLM's {PROJECTOR!r} with {FLAG}, beside a {LANGUAGE!r}")
        if file.fields.get("split.count", 1) != 1:
            raise SpecError(f"{path} is a part of a file that was split; join them with llama-gguf-split --merge")
        found[kind].append(file)
    for kind, files in found.items():
        if len(files) != 1:
            names = ", ".join(file.path.name for file in files) or "none"
            raise SpecError(
                f"{directory}: expected one GGUF file of architecture {kind!r}, got {names}; put a pair into a directory of its own"
            )
    return found[PROJECTOR][0], found[LANGUAGE][0]


def described(projector: Header, language: Header) -> Architecture:
    """The parts that a pair is of. Raises SpecError for what vlmkit does not build."""
    shapes = projector.shapes | language.shapes
    vision: dict[str, Any] = {ours: whole(projector, theirs) for ours, theirs in VISION.items()}
    colours: dict[str, Any] = {ours: colour(projector, theirs) for ours, theirs in COLOURS.items()}
    settings = {ours: whole(language, theirs) for ours, theirs in WHOLE.items()} | {
        ours: real(language, name) for ours, name in REAL.items()
    }
    read = {*VISION.values(), *COLOURS.values(), *WHOLE.values(), *REAL.values(), *FREE}
    for file, prefix in ((projector, f"{PROJECTOR}."), (language, f"{LANGUAGE}.")):
        if strange := next((name for name in file.fields if name.startswith(prefix) and name not in read), None):
            raise SpecError(f"{file.where} states {strange} = {file.fields[strange]!r}, which is not built")
    for name, sides in (("mm.0.weight", 2), ("token_embd.weight", 2), ("v.position_embd.weight", 2)):
        if len(shapes.get(name, ())) != sides:
            raise SpecError(f"{(language if name.startswith('token') else projector).where}: {name} is missing, or no matrix")
    hidden, folded = shapes["mm.0.weight"]
    if folded % vision["width"] or vision["image_size"] < vision["patch"]:
        raise SpecError(
            f"{projector.where}: mm.0.weight takes {folded} channels of a tower of {vision['width']}, and images of {vision['image_size']} "
            f"pixels have patches of {vision['patch']}"
        )
    size, patch, fields = vision["image_size"], vision["patch"], language.fields
    if (rows := (size // patch) ** 2) != shapes["v.position_embd.weight"][0]:
        raise SpecError(
            f"{projector.where}: v.position_embd.weight has {shapes['v.position_embd.weight'][0]} rows, but there are {rows} patches"
        )
    begin = str(fields[f"{KEY}tokens"][fields[f"{KEY}bos_token_id"]]) if fields.get(f"{KEY}add_bos_token") else ""
    return OMNIVLM.replace(
        name="omnivlm",
        policy=Squash(size=size, view=size // patch * patch if size % patch else None),
        encoder=Siglip(**vision, **colours, final_norm="v.post_ln.weight" in shapes),
        connector=SequenceFold(fold=folded // vision["width"], hidden=hidden),
        layout=OMNIVLM.layout.replace(template=OMNIVLM.layout.template.replace(begin=begin)),
        language_model=LanguageModel(
            model_type="qwen2",
            config=Settings(
                settings
                | {"vocab_size": shapes["token_embd.weight"][0], "tie_word_embeddings": "output.weight" not in shapes}
                | {ours: fields.get(KEY + theirs) for ours, theirs in TOKENS.items()}
            ),
        ),
    )


def fields_of(architecture: Architecture, processor: VLMProcessor) -> tuple[dict[str, Any], dict[str, Any]]:
    """The fields of either file. Raises SpecError for an architecture that no pair expresses."""
    encoder, connector, policy = architecture.encoder, architecture.connector, architecture.policy
    if not isinstance(encoder, Siglip) or not isinstance(connector, SequenceFold) or not isinstance(policy, Squash):
        kinds = architecture.kinds()
        raise SpecError(
            f"{NAME} has 'squash', 'siglip' and 'sequence_fold', not {kinds['policy']!r}, {kinds['encoder']!r} and {kinds['connector']!r}"
        )
    text, words = architecture.language_model.transformers_config(), architecture.language_model
    if text.model_type != LANGUAGE or words.experts is not None or words.unspoken:
        raise SpecError(f"{NAME} has a language model of type {LANGUAGE!r} as it is, but this one is {words}")
    if connector.fold not in FOLDS:
        raise SpecError(
            f"{NAME} folds 9 tokens into one, or none, for its runner has no other fold, but the connector folds {connector.fold}"
        )
    projector = {theirs: getattr(encoder, ours) for ours, theirs in (VISION | COLOURS).items()}
    projector = {name: list(value) if isinstance(value, tuple) else value for name, value in projector.items()}
    said = projector | {FLAG: True, "siglip.vision.projection_dim": connector.hidden or text.hidden_size, "general.name": "omni-vlm"}
    said |= {"general.description": "image encoder for omni-vlm"}
    language = {theirs: getattr(text, ours) for ours, theirs in WHOLE.items()}
    language |= {REAL["rope_theta"]: float(text.rope_parameters["rope_theta"]), REAL["rms_norm_eps"]: float(text.rms_norm_eps)}
    language |= {"general.name": architecture.name} | tokenizer_fields(processor.tokenizer, text.vocab_size)
    for ours, theirs in TOKENS.items():
        number = getattr(text, ours)
        if isinstance(number, list):
            raise SpecError(f"{NAME} has one {ours}, but the language model has {number}")
        language.pop(KEY + theirs, None)
        language |= {} if number is None else {KEY + theirs: number}
    model = bare_of(architecture, torch.float32)
    names, shapes = names_of(architecture), {name: tuple(value.shape) for name, value in model.state_dict().items()}
    tied = {"language_model.lm_head.weight"} if text.tie_word_embeddings else set[str]()
    written = {theirs: shapes[ours] for ours, theirs in names.items() if ours not in tied}
    read = described(Header(architecture.name, said, written), Header(architecture.name, language, written))
    refuse_other(NAME, bare(architecture), read, NO_MATTER)
    return said, language


def bare(architecture: Architecture) -> Architecture:
    """Without what a pair does not say: where the tower came from, and a width that is the language model's own."""
    encoder, connector = architecture.encoder, architecture.connector
    hidden = connector.hidden or architecture.language_model.transformers_config().hidden_size  # type: ignore[attr-defined]
    return architecture.replace(encoder=encoder.replace(checkpoint=None), connector=connector.replace(hidden=hidden))


def names_of(architecture: Architecture) -> dict[str, str]:
    """vlmkit's names -> theirs."""
    blocks = architecture.language_model.transformers_config().num_hidden_layers
    return theirs_of(bare_of(architecture, torch.float32).state_dict(), blocks)


def whole(file: Header, name: str) -> int:
    """A field that is a positive whole number. Raises SpecError for any other, and for more layers than are read."""
    value = file.fields.get(name)
    most = MOST_LAYERS if name.endswith(".block_count") else 1 << 31
    if not isinstance(value, int) or isinstance(value, bool) or not 0 < value <= most:
        raise SpecError(f"{file.where}: {name}: expected a whole number of 1 to {most:,}, got {value!r}")
    return value


def real(file: Header, name: str) -> float:
    value = file.fields.get(name)
    if not isinstance(value, float) or not 0 < value < math.inf:
        raise SpecError(f"{file.where}: {name}: expected a number above 0, got {value!r}")
    return value


def colour(file: Header, name: str) -> tuple[float, ...]:
    value = file.fields.get(name)
    if not isinstance(value, list) or len(value) != 3 or not all(isinstance(each, float) and math.isfinite(each) for each in value):
        raise SpecError(f"{file.where}: {name}: expected three numbers, got {str(value)[:40]}")
    return tuple(value)


FAMILY = OmniVLM()
