"""Whole numbers of a batch as values: what each view is. They are read once a forward; no module reads them from a tensor again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vlmkit.features import Grid, View

if TYPE_CHECKING:
    from torch import Tensor

PIXELS = frozenset({"pixel_values", "grids", "image_grid_thw", "places", "tags"})
"""What a batch holds once for all of its rows, whatever their number; of further towers with a number behind the name."""

BESIDE_VISUAL = ("grids", "places", "tags")
"""What of it still says something where visual tokens are given in place of pixels."""


def views_of(grids: Tensor, places: Tensor | None = None) -> tuple[View, ...]:
    """(V, 3) of frames, rows, columns, and (V, 8) of image, row, column, milliseconds and the pixels of padding above, left, below
    and right -> one View a row.

    A tensor on a device is waited for: whoever moves a batch may leave these on the CPU.
    """
    shapes = [Grid(*row) for row in grids.tolist()]
    if places is None:
        return tuple([View(grid) for grid in shapes])
    return tuple([View(grid, *place) for grid, place in zip(shapes, places.tolist(), strict=True)])


def is_pixels(name: str) -> bool:
    """Whether 'pixel_values', 'grids_1', ...: an entry of a batch that has no row a sample."""
    kind, _, number = name.rpartition("_")
    return name in PIXELS or (kind in PIXELS and number.isdigit())


def is_whole_numbers(name: str) -> bool:
    """Whether 'grids', 'places_1', 'boundaries', ...: what is read once a forward, and best stays on the CPU."""
    return name in ("boundaries", "prefixes") or (is_pixels(name) and not name.startswith(("pixel_values", "tags")))


def take_pixels(entries: dict[str, Any]) -> dict[str, Any]:
    """Those entries, taken out."""
    # No name is asked about further that ends with no number: this is done twice a step of generation.
    names = [name for name in entries if name in PIXELS or (name[-1:].isdigit() and is_pixels(name))]
    return {name: entries.pop(name) for name in names}
