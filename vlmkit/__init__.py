"""vlmkit: interchangeable parts for vision-language models, a registry that names them, and recipes that assemble them.

    import vlmkit
    model = vlmkit.build("univa-vl-tiny")
    processor = vlmkit.build_processor("univa-vl-tiny")
    model.chat(processor, "photo.jpg", "What does the sign say?")

Importing vlmkit loads neither torch nor transformers, nor any part of vlmkit: a name is loaded when it is first used.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from vlmkit.auto import register_when_transformers_loads

if TYPE_CHECKING:
    from vlmkit.architecture import Architecture, ArchitectureError, Parameters, VisionTower
    from vlmkit.build import build, build_processor, load
    from vlmkit.config import VLMConfig
    from vlmkit.connectors import connectors
    from vlmkit.conversation import Conversation
    from vlmkit.data.filters import filters
    from vlmkit.data.formats import formats
    from vlmkit.data.rejections import Rejections
    from vlmkit.data.sample import DataError, Rejected, Sample
    from vlmkit.encoders import encoders
    from vlmkit.evaluation.benchmarks import tasks
    from vlmkit.features import Features, Grid, GridError
    from vlmkit.fusion import fusions
    from vlmkit.fusion.incoming import FusionError
    from vlmkit.language_model import LanguageModel
    from vlmkit.layout import layouts
    from vlmkit.layout.laid_out import LayoutError
    from vlmkit.model import VLM
    from vlmkit.plugins import PluginError, load_plugin
    from vlmkit.preprocess import policies
    from vlmkit.preprocess.geometry import Clip, ImagePlan, ImageSizeError, Size
    from vlmkit.preprocess.images import ImageError, open_image
    from vlmkit.preprocess.sampling import Sampling
    from vlmkit.preprocess.video import VideoError, open_video
    from vlmkit.processor import VLMProcessor
    from vlmkit.registry import RegistryError
    from vlmkit.spec import Settings, SpecError
    from vlmkit.staged_search import stage_beam_search
    from vlmkit.zoo import architecture, list_models, register_model

    list_connectors = connectors.names
    list_encoders = encoders.names
    list_filters = filters.names
    list_formats = formats.names
    list_fusions = fusions.names
    list_layouts = layouts.names
    list_policies = policies.names
    list_tasks = tasks.names

__version__ = "0.1.0"

__all__ = [
    "VLM",
    "Architecture",
    "ArchitectureError",
    "Clip",
    "Conversation",
    "DataError",
    "Features",
    "FusionError",
    "Grid",
    "GridError",
    "ImageError",
    "ImagePlan",
    "ImageSizeError",
    "LanguageModel",
    "LayoutError",
    "Parameters",
    "PluginError",
    "RegistryError",
    "Rejected",
    "Rejections",
    "Sample",
    "Sampling",
    "Settings",
    "Size",
    "SpecError",
    "VLMConfig",
    "VLMProcessor",
    "VideoError",
    "VisionTower",
    "architecture",
    "build",
    "build_processor",
    "connectors",
    "encoders",
    "filters",
    "formats",
    "fusions",
    "layouts",
    "list_connectors",
    "list_encoders",
    "list_filters",
    "list_formats",
    "list_fusions",
    "list_layouts",
    "list_models",
    "list_policies",
    "list_tasks",
    "load",
    "load_plugin",
    "open_image",
    "open_video",
    "policies",
    "register_model",
    "stage_beam_search",
    "tasks",
]

_PUBLIC = {
    "vlmkit.architecture": ("Architecture", "ArchitectureError", "Parameters", "VisionTower"),
    "vlmkit.build": ("build", "build_processor", "load"),
    "vlmkit.config": ("VLMConfig",),
    "vlmkit.connectors": ("connectors",),
    "vlmkit.conversation": ("Conversation",),
    "vlmkit.data.filters": ("filters",),
    "vlmkit.data.formats": ("formats",),
    "vlmkit.data.rejections": ("Rejections",),
    "vlmkit.data.sample": ("DataError", "Rejected", "Sample"),
    "vlmkit.encoders": ("encoders",),
    "vlmkit.evaluation.benchmarks": ("tasks",),
    "vlmkit.features": ("Features", "Grid", "GridError"),
    "vlmkit.fusion": ("fusions",),
    "vlmkit.fusion.incoming": ("FusionError",),
    "vlmkit.language_model": ("LanguageModel",),
    "vlmkit.layout": ("layouts",),
    "vlmkit.layout.laid_out": ("LayoutError",),
    "vlmkit.model": ("VLM",),
    "vlmkit.plugins": ("PluginError", "load_plugin"),
    "vlmkit.preprocess": ("policies",),
    "vlmkit.preprocess.geometry": ("Clip", "ImagePlan", "ImageSizeError", "Size"),
    "vlmkit.preprocess.images": ("ImageError", "open_image"),
    "vlmkit.preprocess.sampling": ("Sampling",),
    "vlmkit.preprocess.video": ("VideoError", "open_video"),
    "vlmkit.processor": ("VLMProcessor",),
    "vlmkit.registry": ("RegistryError",),
    "vlmkit.spec": ("Settings", "SpecError"),
    "vlmkit.staged_search": ("stage_beam_search",),
    "vlmkit.zoo": ("architecture", "list_models", "register_model"),
}
"""Where each public name lives."""

_HOMES = {name: module for module, names in _PUBLIC.items() for name in names}
_LISTED = ("connectors", "encoders", "filters", "formats", "fusions", "layouts", "policies", "tasks")
_LISTS = {f"list_{registry}": registry for registry in _LISTED}


def __getattr__(name: str) -> Any:
    if name in _LISTS:
        value = __getattr__(_LISTS[name]).names
    elif name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(_HOMES[name]), name)
    else:
        raise AttributeError(f"module 'vlmkit' has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Python binds a submodule to its package once it is loaded. The names build, architecture, connectors and encoders
    mean the function or registry, not the file that it stands in."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
register_when_transformers_loads()
