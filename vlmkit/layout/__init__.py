"""Token layout: which ids surround an image, and where its visual tokens stand."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmkit.registry import Registry

if TYPE_CHECKING:
    from vlmkit.layout.base import TokenLayout

layouts: Registry[TokenLayout] = Registry(
    "layout",
    package=__name__,
    builtin=(
        "bracketed",
        "bracketed_lines",
        "fenced",
        "images_first",
        "numbered_tiles",
        "opening",
        "rows",
        "rows_first",
        "run",
        "seen",
        "seen_fenced",
        "seen_tiles",
        "seen_tiles_beside",
        "stitched_rows",
        "tile_tags",
        "timestamps",
        "unpadded_rows",
    ),
)
