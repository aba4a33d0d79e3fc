"""The form of a batch that other libraries pad, put one behind the other, cut and extend by answers, and the way back.

The batch that a model reads best counts visual tokens through all of its rows and marks places without one by -1. Whoever fills it up
with zeros (transformers' pipelines) or carries only what transformers' own models know (TRL) breaks it. In the portable form a row
stands by itself, zero means nothing everywhere, and every entry has a name that transformers knows:

    input_ids, attention_mask    as always
    mm_token_type_ids (B, S)     k > 0: visual token k - 1 of those of this row's images
                                 k + n * 2^32: from here on n - 1 visual tokens are looked at, of which k - 1 is the first
                                 0: nothing but text, and padding
                                 -1: text of the prefix that is seen in both directions
                                 -1 - k: learned embedding k - 1
    pixel_values                 as always
    image_grid_thw (I, 3)        a row an image: its views, and rows and columns of patches in each; a row a view where views of one image
                                 differ, and of clips their frames
    visual_counts (B,)           visual tokens of each row's images, only where neither codes nor images say how many they are
    places (V, 8)                of the image's number there is left whether it begins here: 1 or 0
    tags (V, L)                  as always

`whole` makes of it what the model reads. No position is stated: they follow from the mask, those of three axes from the grids.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlmkit.architecture import Architecture
from vlmkit.arrival import check_places
from vlmkit.batch.batch import Batch, Contents
from vlmkit.features import Grid
from vlmkit.fusion.incoming import FusionError
from vlmkit.layout.laid_out import Layout, Span
from vlmkit.layout.positions import positions_of
from vlmkit.views import views_of

CODES = "mm_token_type_ids"
PREFIX = -1
MARK = 1 << 32
Numbers = NDArray[np.int64]


def portable(batch: Batch, layouts: Sequence[Layout], side: str, spec: Architecture) -> Batch:
    """A batch with one conversation a row in the portable form. layouts: those of its rows, on their `side`."""
    old, segments = batch.contents, batch["segments"]
    counts = [sum(image.tokens for image in old.images[first:end]) for first, end in old.rows]
    starts = [old.tokens_before(first) for first, _ in old.rows]
    index = batch["visual_index"]
    codes = torch.where(index >= 0, index - torch.tensor(starts)[:, None] + 1, 0)
    if "learned_index" in batch:
        codes = torch.where(batch["learned_index"] >= 0, PREFIX - 1 - batch["learned_index"], codes)
    if "token_type_ids" in batch:
        codes[(batch["token_type_ids"] == 0) & (segments >= 0) & (codes == 0)] = PREFIX
    for row, layout in enumerate(layouts):
        moved = codes.shape[1] - len(layout.ids) if side == "left" else 0
        first = old.rows[row][0]
        for place, image, begin, length in layout.seen:
            if place < len(layout.ids):
                codes[row, moved + place] = old.tokens_before(first + image) - starts[row] + begin + 1 + (length + 1) * MARK
    found = {name: batch[name] for name in ("input_ids", "attention_mask", "labels") if name in batch}
    found[CODES] = codes
    images = list(old.images)
    if "grids" in batch:
        parts = torch.split(batch["grids"], [image.views[0] for image in images])
        rows = [image_rows(part, spec) for part in parts]
        found["image_grid_thw"] = torch.cat(rows)
        images = [image._replace(rows=len(part)) for image, part in zip(images, rows, strict=True)]
    if (spec.layout.partial or spec.fusion.needs_visible) and any(image.rows > 1 for image in images):
        found["visual_counts"] = torch.tensor(counts)
    for name, value in batch.items():
        if name == "places":
            begins = torch.ones(len(value), dtype=value.dtype)
            begins[1:] = value[1:, 0] != value[:-1, 0]
            found["places"] = torch.cat([begins[:, None], value[:, 1:]], dim=1)
        elif name.startswith(("pixel_values", "grids_", "tags")):
            found[name] = value
    return Batch(found, contents=Contents(tuple(images), old.rows))


def image_rows(grids: Tensor, spec: Architecture) -> Tensor:
    """Grids (V, 3) of one image's views -> (1, 3) where they are alike, and otherwise as they are."""
    if spec.encoder.clips or bool((grids != grids[0]).any()):
        return grids
    return torch.stack([grids[:, 0].sum(), grids[0, 1], grids[0, 2]])[None]


def view_rows(rows: Tensor, spec: Architecture) -> tuple[Tensor, list[int]]:
    """The way back: grids (V, 3), and how many views each row is."""
    if spec.encoder.clips:
        return rows, [1] * len(rows)
    counts = rows[:, 0]
    grids = rows.repeat_interleave(counts, dim=0)
    grids[:, 0] = 1
    return grids, counts.tolist()


def listed(batch: Batch) -> Batch:
    """The same with its rows as lists, without what fills them up."""
    held = batch["attention_mask"].bool()
    rows = {"input_ids", "attention_mask", "labels", "assistant_masks", CODES}
    return Batch(
        {
            name: [row[kept].tolist() for row, kept in zip(value, held, strict=True)] if name in rows else value
            for name, value in batch.items()
        },
        contents=batch.contents,
    )


def whole(batch: dict[str, Any], spec: Architecture) -> dict[str, Any]:
    """The entries of a batch in the portable form as the model reads them, on the device of its ids; those that it does not name stay.

    Raises FusionError where places and images do not fit, naming row and numbers.
    """
    batch = {name: value for name, value in batch.items() if value is not None}
    codes_given, counts_given = batch.pop(CODES), batch.pop("visual_counts", None)
    rows_of_images = batch.pop("image_grid_thw", None)
    sizes: list[int] = []
    if rows_of_images is not None:
        batch["grids"], sizes = view_rows(rows_of_images.cpu(), spec)
    device, codes = codes_given.device, codes_given.detach().cpu().numpy()
    mask = batch.get("attention_mask")
    if mask is not None and tuple(mask.shape) != codes.shape:
        raise FusionError(
            f"{CODES} has {codes.shape[0]} rows of {codes.shape[1]}, attention_mask {tuple(mask.shape)}: whoever adds tokens to a row adds "
            "zeros there"
        )
    held = np.ones(codes.shape, bool) if mask is None else mask.detach().cpu().numpy().astype(bool)
    views = _views(batch, spec)
    images = iter(views)
    rows = _rows(codes, None if counts_given is None else counts_given.tolist(), [tuple(islice(images, size)) for size in sizes])
    starts = np.array([row.start for row in rows])[:, None]
    found: dict[str, Numbers] = {
        "segments": held.astype(np.int64) - 1,
        "visual_index": np.where((codes > 0) & (codes < MARK), codes - 1 + starts, -1),
    }
    if spec.fusion.needs_visible:
        found["visible"] = np.where(held[..., None], _visible(codes, rows, spec.layout.neighbours_together), 0)
    if spec.layout.learned:
        found["learned_index"] = np.where(codes < PREFIX, PREFIX - 1 - codes, -1)
    if spec.fusion.needs_prefix:
        found["token_type_ids"] = (codes == 0).astype(np.int64)
    if spec.language_model.positions == "three":
        found["position_ids"] = _three(codes, held, rows)
    else:
        found["position_ids"] = np.where(held, held.cumsum(axis=1) - 1, 0)
    if batch.get("places") is not None:
        places = batch["places"].clone()
        places[:, 0] = places[:, 0].cumsum(0) - 1
        batch["places"] = places
    entries = {name: torch.from_numpy(value) for name, value in found.items()}
    if views:
        check_places(views, entries["visual_index"], whole=not spec.layout.partial)
    return batch | {name: value.to(device) for name, value in entries.items()}


class Row(NamedTuple):
    """Visual tokens of one row."""

    start: int
    """How many there are before its own."""
    tokens: int
    views: tuple[Grid, ...]


def _views(batch: dict[str, Any], spec: Architecture) -> tuple[Grid, ...]:
    """Grids of visual tokens, a view each."""
    if batch.get("grids") is None:
        return ()
    sets = []
    for number in spec.pixel_sets:
        grids = batch.get(f"grids_{number}" if number else "grids")
        if grids is None:
            raise FusionError(f"the batch has lost grids_{number} and pixel_values_{number}, which a further tower sees")
        sets.append([view.grid for view in views_of(grids)])
    if batch.get("places") is None and any(tower.encoder.reads_places for tower in spec.towers):
        raise FusionError("the batch has lost 'places', which say what tile of which image a view is")
    if batch.get("tags") is None and spec.fusion.reads_tags and spec.layout.tags_views:
        raise FusionError("the batch has lost 'tags', the text of views that are looked at")
    return spec.grids_out(*sets)


def _rows(codes: Numbers, counts: list[int] | None, images: Sequence[tuple[Grid, ...]]) -> list[Row]:
    """Which of the batch's images, as the grids of their views, are whose: a row has as many as its visual tokens take, and nobody's are
    left."""
    sizes = [sum(grid.tokens for grid in views) for views in images]
    rows: list[Row] = []
    start = first = 0
    for number, row in enumerate(codes):
        named = int((row[row > 0] % MARK).max(initial=0))
        wanted, last, tokens = named if counts is None else counts[number], first, 0
        while tokens < wanted and last < len(images):
            tokens += sizes[last]
            last += 1
        if tokens < named or (counts is not None and images and tokens != wanted):
            raise FusionError(
                f"row {number} refers to visual token {named - 1} of its images, "
                + (f"which have {tokens}" if images else "but the batch has no pixel_values with image_grid_thw")
            )
        rows.append(Row(start, tokens, tuple(grid for views in images[first:last] for grid in views)))
        start, first = start + tokens, last
    if start != sum(sizes):
        raise FusionError(
            f"the rows take {start} visual tokens, but the images of the batch gave {sum(sizes)}: rows and images were parted"
        )
    return rows


def _visible(codes: Numbers, rows: Sequence[Row], together: bool) -> Numbers:
    """(B, S, 2): what each token looks at: from a mark on the range that it states, until the next mark."""
    visible = np.zeros((*codes.shape, 2), np.int64)
    for number, row in enumerate(codes):
        places = (row >= MARK).nonzero()[0].tolist()
        if not places:
            continue
        marks = [(rows[number].start + int(row[place]) % MARK - 1, int(row[place]) // MARK - 1) for place in places]
        nothing = rows[number].start + rows[number].tokens, min(begin for begin, _ in marks)
        visible[number] = nothing
        shown, before = -1, -1
        for place, (begin, length) in zip(places, marks, strict=True):
            if not (together and place == before + 1 and shown >= 0):
                shown = begin
            visible[number, place:] = (shown, begin + length) if length else nothing
            before = place
    return visible


def _three(codes: Numbers, held: NDArray[np.bool_], rows: Sequence[Row]) -> Numbers:
    """(3, B, S): time, row and column of every token."""
    positions = np.zeros((3, *codes.shape), np.int64)
    for number, row in enumerate(rows):
        of_row = codes[number, held[number]]
        spans: list[Span] = []
        for place in ((of_row > 0) & (of_row < MARK)).nonzero()[0].tolist():
            offset, last = int(of_row[place]) - 1, spans[-1] if spans else None
            if last is not None and last.start + last.length == place and last.offset + last.length == offset:
                spans[-1] = last._replace(length=last.length + 1)
            else:
                spans.append(Span(place, 1, 0, offset))
        positions[:, number, held[number]] = positions_of(spans, [row.views], len(of_row))
    return positions
