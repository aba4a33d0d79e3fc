"""Images: opening them, planning how they are resized and cut, and carrying the plan out.

`smart_resize`, `open_image` and `ImageError` are what most callers want; Pillow is loaded when a picture is opened.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmkit.registry import Registry

if TYPE_CHECKING:
    from vlmkit.preprocess.base import ImagePolicy

policies: Registry[ImagePolicy] = Registry(
    "policy",
    package=__name__,
    builtin=(
        "anyres",
        "center_crop",
        "edge_bounds",
        "edge_cap",
        "fit_canvas",
        "letterbox",
        "longest_edge_tiles",
        "pad_square",
        "smart_resize",
        "squash",
    ),
)

# The function has the name of its file: binding it here, after the file was loaded, lets the function win.
from vlmkit.preprocess.geometry import Box, ImagePlan, ImageSizeError, Render, Size  # noqa: E402
from vlmkit.preprocess.smart_resize import smart_resize  # noqa: E402

if TYPE_CHECKING:
    from vlmkit.preprocess.images import ImageError, open_image
    from vlmkit.preprocess.pixels import render

_LAZY = {"open_image": "images", "ImageError": "images", "render": "pixels"}

__all__ = ["Box", "ImageError", "ImagePlan", "ImageSizeError", "Render", "Size", "open_image", "policies", "render", "smart_resize"]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
