"""Published checkpoints: how a family's own directory becomes a vlmkit model, and a vlmkit model such a directory."""

from __future__ import annotations

import importlib
import json
import os
from typing import TYPE_CHECKING

from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from vlmkit.architecture import Architecture
    from vlmkit.checkpoints.published import Published
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor

FAMILIES = {
    "smolvlm": "smolvlm",
    "mllama": "mllama",
    "aria": "aria",
    "idefics": "idefics1",
    "idefics2": "idefics2",
    "idefics3": "idefics3",
    "janus": "janus",
    "fuyu": "fuyu",
    "llava": "llava",
    "llava_next": "llava_next",
    "mistral3": "mistral3",
    "paligemma": "paligemma",
    "qwen2_vl": "qwen2_vl",
    "video_llama_3": "videollama3",
}
"""transformers' `model_type` -> the file of this folder that reads and writes it."""

WITH_CODE = {
    "NVLM_D": "nvlm",
    "llava_llama": "llava_original",
    "llava_mistral": "llava_original",
    "moe_llava_phi": "moe_llava",
    "molmo": "molmo",
    "prismatic": "prismatic",
    "qwen": "qwen_vl",
}
"""The same of models whose class lies as code beside the weights, and not in transformers. It is not run: files are read and written
here."""

EARLIER = {"llava": ("mm_vision_tower", "llava_llama")}
"""A model type that two classes have or had -> the field of config.json by which the other one is known, and what its type is called
today: github.com/haotian-liu/LLaVA's first versions, and Yi-VL, have the name that transformers' class has now."""

ASKED_FOR = {
    "llava_original": "LlavaLlamaForCausalLM of github.com/haotian-liu/LLaVA can, without transformers: "
    "family='llava_original', or --format llava"
}
"""Such files that write a directory which transformers does not load, with or without code beside the weights -> what is said where one
could be written."""

WITH_EXPERTS = ("moe_llava",)
"""Such files that write language models with experts in the place of FFNs."""

IN_GGUF = {"omnivlm": "omnivlm"}
"""The same of models that are published as GGUF files, without a config.json."""

MODELS = {"llava": ("llava", "aimv2", "maya", "pixtral"), "llava_original": ("llava_v1", "yi_vl", "llm2clip")}
"""Such a file -> those of the zoo with named models of its class, where it is not the one of the same name alone."""


class UnknownFamilyError(SpecError, LookupError):
    """A model type of which vlmkit reads no checkpoints."""


def family_of(model_type: str, directory: str = "") -> Published:
    """The family of a published model type, which that directory holds. Raises UnknownFamilyError with those that are known."""
    known = FAMILIES | WITH_CODE | IN_GGUF
    if os.path.isfile(os.path.join(directory, "checkpoints", "latest-checkpoint.pt")) and model_type not in known:
        raise UnknownFamilyError(
            f"{directory}: checkpoints/latest-checkpoint.pt is of Prismatic's own training code, without towers and tokenizer; "
            "scripts/extern/convert_prismatic_weights_to_hf.py of github.com/openvla/openvla makes files of it that vlmkit reads"
        )
    if model_type not in known:
        where = f"{directory}: " if directory else ""
        raise UnknownFamilyError(
            f"{where}vlmkit reads no checkpoints of model type {model_type!r}; it reads {', '.join(sorted(known))} and its own"
        )
    return _family(known[model_type])


def model_type_of(directory: str) -> str:
    """The `model_type` that a directory's config.json states; of two classes of one type, that of the one it is of (EARLIER). That of a
    pair of GGUF files where there is none."""
    if not os.path.exists(os.path.join(directory, "config.json")):
        return next(iter(IN_GGUF))
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
        found = json.load(file)
    found = found if isinstance(found, dict) else {}
    said = str(found.get("model_type"))
    field, today = EARLIER.get(said, (None, said))
    return today if field in found else said


def export(model: VLM, processor: VLMProcessor, directory: str | os.PathLike[str], family: str | None = None) -> None:
    """Write a directory that a published model class loads, so that transformers, vLLM and SGLang can serve it.

    family: the file of this folder that is to write it; None: the first that can, but for those of ASKED_FOR. Raises SpecError with each
    family's reason where none can express the architecture, the nearest first; nothing is written then.
    """
    from vlmkit.checkpoints.agreement import refuse_disagreement

    spec, reasons = model.config.spec, {}
    names = dict.fromkeys((FAMILIES | WITH_CODE | IN_GGUF).values()) if family is None else (family,)
    for name in names:
        if spec.language_model.experts is not None and name not in WITH_EXPERTS:
            continue
        known = _family(name)
        try:
            config = known.config(spec, processor)
            published = known.processor(spec, processor)
            known.check(spec)
            refuse_disagreement(published, processor)
        except SpecError as error:
            reasons[name] = str(error)
            continue
        if family is None and name in ASKED_FOR:
            reasons[name] = ASKED_FOR[name]
            continue
        known.export(model, published, config, os.fspath(directory))
        return
    if spec.language_model.experts is not None:
        raise SpecError(
            f"no published model class can express {spec.name}: its language model has experts in the place of FFNs "
            f"({spec.language_model.experts}); {'; '.join(reasons.values()) or 'no other class has any'}; save_pretrained keeps them, and "
            "vlmkit.load reads them"
        )
    nearest = sorted(reasons, key=lambda name: max(len(_parts(spec) & _parts(named)) for named in _named(name)), reverse=True)
    lines = dict.fromkeys(_in_short(reasons[name], spec, name) for name in nearest)
    raise SpecError("\n".join([f"no published model class can express {spec.name}:", *lines]))


def _in_short(reason: str, spec: Architecture, name: str) -> str:
    """The reason with tower and connector by their kinds alone where no named model of the family has such ones, and the reason is not that
    fields of such a one differ. Policy and layout are looked at where these fit, and then their fields do."""
    theirs = set().union(*map(_parts, _named(name)))
    for part in (spec.encoder, spec.connector):
        short = reason.replace(str(part), repr(part.kind))
        if part.kind not in theirs and f"{type(part).__name__}(" not in short:
            reason = short
    return reason


def _parts(spec: Architecture) -> set[str]:
    return {part.kind for part in (spec.policy, spec.encoder, spec.connector, spec.layout, spec.fusion)}


def _named(name: str) -> list[Architecture]:
    """The named models of a family."""
    return [model for file in MODELS.get(name, (name,)) for model in importlib.import_module(f"vlmkit.zoo.{file}").MODELS]


def _family(name: str) -> Published:
    found: Published = importlib.import_module(f"{__name__}.{name}").FAMILY
    return found
