"""vlmkit: interchangeable parts for vision-language models, a registry that names them, and recipes that assemble them.

    import vlmkit
    model = vlmkit.build("univa-vl-tiny")
    processor = vlmkit.build_processor("univa-vl-tiny")
    model.chat(processor, "photo.jpg", "What does the sign say?")

Importing vlmkit loads neither torch nor transformers; what needs them loads them when it is used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Functions and registries with the name of a submodule (build, architecture, connectors, encoders) are bound here, after
# the submodule was imported, so that the name means the function or registry and not the file.
from vlmkit import auto as _auto
from vlmkit.architecture import Architecture, ArchitectureError, Parameters
from vlmkit.build import build, build_processor, load
from vlmkit.connectors import connectors
from vlmkit.encoders import encoders
from vlmkit.features import Grid, GridError
from vlmkit.fusion import fusions
from vlmkit.language_model import LanguageModel
from vlmkit.layout import layouts
from vlmkit.plugins import load_plugin
from vlmkit.preprocess import policies
from vlmkit.preprocess.geometry import ImagePlan, ImageSizeError, Size
from vlmkit.registry import RegistryError
from vlmkit.spec import Settings, SpecError
from vlmkit.zoo import architecture, list_models, register_model

if TYPE_CHECKING:
    from vlmkit.config import VLMConfig
    from vlmkit.features import Features
    from vlmkit.model import VLM
    from vlmkit.preprocess.images import ImageError, open_image
    from vlmkit.processor import VLMProcessor

__version__ = "0.1.0"

list_encoders = encoders.names
list_connectors = connectors.names
list_policies = policies.names
list_layouts = layouts.names
list_fusions = fusions.names

_LAZY = {
    "Features": "vlmkit.features",
    "ImageError": "vlmkit.preprocess.images",
    "VLM": "vlmkit.model",
    "VLMConfig": "vlmkit.config",
    "VLMProcessor": "vlmkit.processor",
    "open_image": "vlmkit.preprocess.images",
}

__all__ = [
    "VLM",
    "Architecture",
    "ArchitectureError",
    "Features",
    "Grid",
    "GridError",
    "ImageError",
    "ImagePlan",
    "ImageSizeError",
    "LanguageModel",
    "Parameters",
    "RegistryError",
    "Settings",
    "Size",
    "SpecError",
    "VLMConfig",
    "VLMProcessor",
    "architecture",
    "build",
    "build_processor",
    "connectors",
    "encoders",
    "fusions",
    "layouts",
    "list_connectors",
    "list_encoders",
    "list_fusions",
    "list_layouts",
    "list_models",
    "list_policies",
    "load",
    "load_plugin",
    "open_image",
    "policies",
    "register_model",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'vlmkit' has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(_LAZY[name]), name)


_auto.register_when_transformers_loads()
