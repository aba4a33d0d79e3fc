"""Images and films: opening them, planning how they are resized and cut, and carrying the plan out.

`smart_resize`, `open_image` and `ImageError` are what most callers want; Pillow is loaded when a picture is opened, PyAV when a
film is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

# Functions and objects that have the name of their file: binding them here, after the file was loaded, lets them win.
from vlmkit.preprocess.geometry import Box, Clip, ImagePlan, ImageSizeError, Render, Size
from vlmkit.preprocess.policies import policies
from vlmkit.preprocess.policies.smart_resize import smart_resize
from vlmkit.preprocess.sampling import Sampling

if TYPE_CHECKING:
    from vlmkit.preprocess.images import ImageError, open_image
    from vlmkit.preprocess.pixels import render, render_clip
    from vlmkit.preprocess.video import VideoError, open_video

_LAZY = {
    "ImageError": "images",
    "VideoError": "video",
    "open_image": "images",
    "open_video": "video",
    "render": "pixels",
    "render_clip": "pixels",
}

__all__ = [
    "Box",
    "Clip",
    "ImageError",
    "ImagePlan",
    "ImageSizeError",
    "Render",
    "Sampling",
    "Size",
    "VideoError",
    "open_image",
    "open_video",
    "policies",
    "render",
    "render_clip",
    "smart_resize",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
