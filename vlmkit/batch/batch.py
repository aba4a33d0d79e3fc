"""A batch that can be cut by rows: what stands for an image travels with the row that shows it.

`batch[2:5]`, `batch[3]`, `batch[[4, 1]]` and `batch[mask]` are batches of these rows, with the pixels, grids and places of their images and
none of the others', renumbered. A model answers each row as it does within the whole batch.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import BatchFeature

from vlmkit.layout.laid_out import IGNORE
from vlmkit.packing import boundaries_of
from vlmkit.views import is_pixels

ROW_OF_POSITIONS = 3
"""Axes of `position_ids` where rows are its second axis: (3, B, S)."""


class Shown(NamedTuple):
    """How much of a batch one image is."""

    tokens: int
    """Visual tokens."""
    patches: tuple[int, ...]
    """Of each set of pixels: `pixel_values`, `pixel_values_1`, ..."""
    views: tuple[int, ...]
    """The same of `grids`, and of `places` the first."""
    rows: int = 1
    """Of `image_grid_thw`."""


class Contents(NamedTuple):
    """What a batch's images are, and which of them each row shows: from the first to the one behind the last."""

    images: tuple[Shown, ...] = ()
    rows: tuple[tuple[int, int], ...] = ()

    def tokens_before(self, image: int) -> int:
        """Visual tokens of the images before this one."""
        return sum(shown.tokens for shown in self.images[:image])


def _numbers(item: Any, rows: int) -> list[int]:
    """Of a number, of numbers, or of a truth value a row: True as a number would be row 1."""
    found = item.tolist() if hasattr(item, "tolist") else item
    values: list[Any] = list(found) if isinstance(found, Iterable) else [found]
    if not any(isinstance(value, bool) for value in values):
        return [operator.index(value) for value in values]
    if len(values) != rows or not all(isinstance(value, bool) for value in values):
        raise IndexError(f"{len(values)} truth values of rows of a batch of {rows} rows; give one for each row, or the rows' numbers")
    return [row for row, value in enumerate(values) if value]


class Batch(BatchFeature):  # type: ignore[misc]
    """As transformers' BatchFeature, and cut by rows."""

    def __init__(self, data: dict[str, Any] | None = None, *, contents: Contents | None = None, **options: Any) -> None:
        super().__init__(data, **options)
        self.contents = contents or Contents()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "contents": self.contents}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self.skip_tensor_conversion = None
        self.contents = state["contents"]

    def __getitem__(self, item: Any) -> Any:
        """The entry of this name; or the batch of these rows: a slice, a number, numbers, or a truth value a row, as torch and numpy take
        them. Raises IndexError where there is no such row."""
        if isinstance(item, str):
            return super().__getitem__(item)
        rows = len(self.contents.rows)
        if isinstance(item, slice):
            chosen = list(range(rows))[item]
        else:
            numbers = _numbers(item, rows)
            if any(not -rows <= number < rows for number in numbers):
                raise IndexError(f"rows {numbers} of a batch of {rows} rows; count from 0 to {rows - 1}")
            chosen = [number % rows for number in numbers]
        if not chosen:
            raise IndexError(f"no row of the batch of {rows} rows is in {item}: a batch has at least one row")
        return self.of_rows(chosen)

    def of_rows(self, chosen: Sequence[int]) -> Batch:
        """The batch of these rows."""
        old, rows = self.contents, torch.tensor(chosen)
        # In their order: rows that share some then have theirs side by side still.
        kept = sorted({image for row in chosen for image in range(*old.rows[row])})
        place = {image: number for number, image in enumerate(kept)}
        shown = [old.rows[row] for row in chosen]
        ranges = tuple((place[first], place[first] + end - first) if first < end else (0, 0) for first, end in shown)
        contents = Contents(tuple(old.images[image] for image in kept), ranges)
        found: dict[str, Any] = {}
        for name, value in self.data.items():
            if is_pixels(name):
                if kept:
                    found[name] = self._of_images(name, value, kept)
            elif name in ("supervised", "boundaries") or not isinstance(value, Tensor) or not value.dim():
                found[name] = value
            elif name == "position_ids" and value.dim() == ROW_OF_POSITIONS:
                found[name] = value[:, rows.to(value.device)]
            else:
                found[name] = value[rows.to(value.device)]
        for number, row in enumerate(chosen):
            moved = contents.tokens_before(ranges[number][0]) - old.tokens_before(old.rows[row][0])
            if "visual_index" in found:
                index = found["visual_index"][number]
                index[index >= 0] += moved
            if "visible" in found and ranges[number][0] < ranges[number][1]:
                found["visible"][number] += moved
        if "supervised" in found:
            found["supervised"] = (found["labels"][:, 1:] != IGNORE).any(dim=0).nonzero().squeeze(1)
        if "boundaries" in found:
            found["boundaries"] = boundaries_of(found["segments"])
        return Batch(found, contents=contents)

    def _of_images(self, name: str, value: Tensor, kept: Sequence[int]) -> Tensor:
        """What an entry that has no row a sample holds of these images."""
        _, _, behind = name.rpartition("_")
        number = int(behind) if behind.isdigit() else 0
        images = self.contents.images
        if name == "image_grid_thw":
            sizes = [image.rows for image in images]
        else:
            sizes = [(image.patches if name.startswith("pixel_values") else image.views)[number] for image in images]
        parts = torch.split(value, sizes)
        if name != "places" or "mm_token_type_ids" in self.data:
            return torch.cat([parts[image] for image in kept])
        moved = []
        for place, image in enumerate(kept):
            part = parts[image].clone()
            part[:, 0] = place
            moved.append(part)
        return torch.cat(moved)
