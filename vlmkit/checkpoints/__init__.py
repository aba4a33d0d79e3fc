"""Published checkpoints: how a family's own directory becomes a vlmkit model, and a vlmkit model such a directory."""

from __future__ import annotations

import importlib
import json
import os
from typing import TYPE_CHECKING

from vlmkit.spec import SpecError

if TYPE_CHECKING:
    from vlmkit.checkpoints.family import Family
    from vlmkit.model import VLM
    from vlmkit.processor import VLMProcessor

FAMILIES = {
    "smolvlm": "smolvlm",
    "idefics2": "idefics2",
    "idefics3": "idefics3",
    "janus": "janus",
    "fuyu": "fuyu",
    "llava": "llava",
    "llava_next": "llava_next",
    "paligemma": "paligemma",
}
"""transformers' `model_type` -> the file of this folder that reads and writes it."""


def family_of(model_type: str) -> Family:
    """The family of a transformers model type. Raises LookupError with those that are known."""
    if model_type not in FAMILIES:
        raise LookupError(f"vlmkit reads no checkpoints of model type {model_type!r}; it reads {', '.join(sorted(FAMILIES))} and its own")
    return _family(FAMILIES[model_type])


def model_type_of(directory: str) -> str:
    """The `model_type` that a directory's config.json states."""
    with open(os.path.join(directory, "config.json"), encoding="utf-8") as file:
        return str(json.load(file).get("model_type"))


def export(model: VLM, processor: VLMProcessor, directory: str | os.PathLike[str]) -> None:
    """Write a directory that a model class of transformers loads, so that transformers, vLLM and SGLang can serve it.

    Raises SpecError with each family's reason where none can express the architecture; nothing is written then.
    """
    spec, reasons = model.config.spec, []
    for name in dict.fromkeys(FAMILIES.values()):
        known = _family(name)
        try:
            config = known.config(spec, processor)
            published = known.processor(spec, processor)
        except SpecError as error:
            reasons.append(str(error))
            continue
        known.export(model, published, config, os.fspath(directory))
        return
    raise SpecError("\n".join([f"no model class of transformers can express {spec.name}:", *dict.fromkeys(reasons)]))


def _family(name: str) -> Family:
    found: Family = importlib.import_module(f"{__name__}.{name}").FAMILY
    return found
