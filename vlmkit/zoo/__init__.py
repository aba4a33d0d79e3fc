"""Named models: values, one file a family. A name is a choice of parts and nothing else."""

from __future__ import annotations

import fnmatch
import importlib

from vlmkit.architecture import Architecture
from vlmkit.registry import RegistryError, suggestion
from vlmkit.spec import SpecError

FAMILIES = (
    "fuyu",
    "aimv2",
    "aria",
    "idefics1",
    "idefics2",
    "idefics3",
    "janus",
    "llava",
    "llava_next",
    "llava_v1",
    "llm2clip",
    "maya",
    "mistral3",
    "mllama",
    "moe_llava",
    "molmo",
    "nvlm",
    "omnivlm",
    "paligemma",
    "pixtral",
    "prismatic",
    "qwen2_vl",
    "qwen_vl",
    "smolvlm",
    "univa",
    "videollama3",
    "yi_vl",
)
"""Files of this folder; each one has a tuple MODELS."""

_models: dict[str, Architecture] = {}
_loaded: set[str] = set()


def register_model(model: Architecture) -> Architecture:
    """Make an architecture known by its name, also from outside the package. Raises RegistryError where it is taken."""
    known = _models.get(model.name)
    if known is not None and known != model:
        raise RegistryError(f"model {model.name!r} is already registered with other parts")
    _models[model.name] = model
    return model


def architecture(name: str | Architecture) -> Architecture:
    """The architecture of a named model; an architecture is its own. Raises RegistryError with the nearest name."""
    if isinstance(name, Architecture):
        return name
    if not isinstance(name, str):
        raise SpecError(f"expected a model's name or an Architecture, got {name!r}")
    names = list_models()
    if name not in _models:
        raise RegistryError(f"unknown model {name!r};{suggestion(name, names)} known: {', '.join(names)}")
    return _models[name]


def list_models(pattern: str = "*") -> list[str]:
    """Names of models that match a shell pattern, sorted: list_models("llava*")."""
    for family in FAMILIES:
        if family not in _loaded:
            _loaded.add(family)
            for model in importlib.import_module(f"{__name__}.{family}").MODELS:
                register_model(model)
    return sorted(fnmatch.filter(_models, pattern))
