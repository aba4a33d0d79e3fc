"""Image policies: how an image of any size is resized, padded and cut into views."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmkit.registry import Registry

if TYPE_CHECKING:
    from vlmkit.preprocess.policies.base import ImagePolicy

policies: Registry[ImagePolicy] = Registry(
    "policy",
    package=__name__,
    builtin=(
        "anyres",
        "canvas_tiles",
        "center_crop",
        "edge_bounds",
        "edge_cap",
        "edge_fit",
        "fit_canvas",
        "letterbox",
        "longest_edge_tiles",
        "multicrop",
        "pad_square",
        "resize_crop",
        "smart_resize",
        "squash",
        "tiles",
    ),
)
