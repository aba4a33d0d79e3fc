"""Rows of a batch: what stands at each place, written once from layouts, so that nothing has to be found again."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vlmkit.batch.batch import Batch, Contents, Shown
from vlmkit.batch.sample import Pixels, PreparedSample, RenderedImage
from vlmkit.batch.tags import Tags
from vlmkit.layout.laid_out import IGNORE, Layout, LayoutError
from vlmkit.layout.pieces import ImageTokens
from vlmkit.layout.positions import three_positions

Numbers = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Entries:
    """Which entries the rows of a batch have, beside those that every batch has, and what fills them where nothing stands."""

    pad: int
    """Token id."""
    learned: bool = False
    prefix: bool = False
    places: bool = False
    """Whether views say which tile of which image they are."""
    visible: bool = False
    neighbours_together: bool = False
    """Whether several images that are seen one right behind the other are all looked at."""
    tags: Tags | None = None
    """Text that views have of their own, where a fusion reads it."""
    three: bool = False
    """Whether a token has three positions, by time, row and column."""

    def blank(self, rows: int, length: int, weighted: bool = False) -> dict[str, NDArray[Any]]:
        """Rows in which no conversation stands yet. weighted: whether tokens count differently in the loss."""
        filled = {"input_ids": self.pad, "position_ids": 0, "labels": IGNORE, "segments": -1, "visual_index": -1}
        if self.learned:
            filled["learned_index"] = -1
        if self.prefix:
            filled["token_type_ids"] = 0
        batch: dict[str, NDArray[Any]] = {name: np.full((rows, length), value, np.int64) for name, value in filled.items()}
        if weighted:
            batch["loss_weights"] = np.ones((rows, length), np.float32)
        if self.three:
            batch["position_ids"] = np.zeros((3, rows, length), np.int64)
        if self.visible:
            batch["visible"] = np.zeros((rows, length, 2), np.int64)
        return batch


@dataclass(frozen=True, slots=True)
class RowOfTokens:
    """A conversation, and where the visual tokens of its images stand among those of the batch."""

    layout: Layout
    images: tuple[tuple[int, int], ...]
    """First visual token of each image, and the one behind its last."""
    tokens: tuple[ImageTokens, ...]
    """The same images."""

    def write(self, batch: dict[str, NDArray[Any]], number: int, start: int, sample: int, entries: Entries) -> slice:
        """Put the conversation into a row of a batch, from `start` on, as its sample number `sample`; where it stands there."""
        layout = self.layout
        place = slice(start, start + len(layout.ids))
        ids, labels, index = batch["input_ids"][number, place], batch["labels"][number, place], batch["visual_index"][number, place]
        ids[:] = layout.ids
        if entries.three:
            batch["position_ids"][:, number, place] = three_positions(layout, self.tokens)
        else:
            batch["position_ids"][number, place] = np.arange(len(ids))
        batch["segments"][number, place] = sample
        for begin, end in layout.supervised:
            labels[begin:end] = ids[begin:end]
        if "loss_weights" in batch:
            batch["loss_weights"][number, place] = layout.weight
        for span in layout.spans:
            first = self.images[span.image][0] + span.offset
            index[span.start : span.start + span.length] = np.arange(first, first + span.length)
        for learned, which in layout.learned:
            batch["learned_index"][number, start + learned] = which
        if entries.prefix:
            # 0 in the prefix, 1 behind it.
            batch["token_type_ids"][number, start + layout.prefix : place.stop] = 1
        if entries.visible:
            self._look(batch["visible"][number, place], entries.neighbours_together)
        return place

    def _look(self, visible: Numbers, together: bool) -> None:
        """From its mark on an image is looked at, until another one's mark; with `together` also beyond marks right behind its own.
        Before the first mark it is the other way round: the one behind the last token of all images, and the first."""
        if self.layout.seen:
            shown = [self.images[mark.image] for mark in self.layout.seen]
            visible[:] = max(end for _, end in shown), min(first for first, _ in shown)
        begin = -1
        before = -1
        for place, image, start, length in self.layout.seen:
            first = self.images[image][0] + start
            if not (together and place == before + 1 and begin >= 0):
                begin = first
            visible[place:] = (begin, first + length) if length else (max(end for _, end in shown), min(first for first, _ in shown))
            before = place


def rows_of(samples: Sequence[PreparedSample], shared: bool = False) -> Iterator[RowOfTokens]:
    """One a conversation. shared: an image object that several samples have stands once among the visual tokens. Raises LayoutError for no
    samples at all."""
    if not samples:
        raise LayoutError("an empty batch: pass at least one conversation")
    total = 0
    placed: dict[int, tuple[int, int]] = {}
    for sample in samples:
        images = []
        for image in sample.images:
            place = placed.get(id(image)) if shared else None
            if place is None:
                place = placed[id(image)] = total, total + image.tokens.count
                total = place[1]
            images.append(place)
        for layout in sample.layouts:
            yield RowOfTokens(layout, tuple(images), tuple(image.tokens for image in sample.images))


def are_weighted(rows: Iterable[RowOfTokens]) -> bool:
    """Whether any of them counts otherwise than others do."""
    return any(row.layout.weight != 1 for row in rows)


def padded(samples: Sequence[PreparedSample], entries: Entries, *, side: str, length: int | None) -> Batch:
    """One row a conversation, padded to `length`, or to the longest. Raises LayoutError where a row is longer."""
    rows = list(rows_of(samples))
    longest = max(len(row.layout.ids) for row in rows)
    length = longest if length is None else length
    if longest > length:
        raise LayoutError(f"a conversation has {longest} tokens, more than its row's length of {length}")
    batch = entries.blank(len(rows), length, are_weighted(rows))
    for number, row in enumerate(rows):
        row.write(batch, number, length - len(row.layout.ids) if side == "left" else 0, 0, entries)
    batch["attention_mask"] = (batch["segments"] >= 0).astype(np.int64)
    return finished(batch, samples, entries, [1] * len(rows))


def packed(rows: Sequence[Sequence[PreparedSample]], entries: Entries, length: int | None) -> Batch:
    """Rows of packed samples, each filled up to `length`, or to the longest. The first token of a sample is nobody's target. Raises
    LayoutError where a row holds more.

    An image object that several samples have is encoded once, but for cross-attention, which looks at all that lies between the first and
    the last image of a sample.
    """
    samples = [sample for row in rows for sample in row]
    shared = not entries.visible
    found = rows_of(samples, shared)
    conversations = [[next(found) for sample in row for _ in sample.layouts] for row in rows]
    used = [sum(len(conversation.layout.ids) for conversation in row) for row in conversations]
    length = max(used) if length is None else length
    if max(used) > length:
        raise LayoutError(f"row {used.index(max(used))} holds {max(used)} tokens, more than its length of {length}")
    batch = entries.blank(len(rows), length, are_weighted(conversation for row in conversations for conversation in row))
    for number, row in enumerate(conversations):
        start = 0
        for sample, conversation in enumerate(row):
            place = conversation.write(batch, number, start, sample, entries)
            batch["labels"][number, start] = IGNORE
            start = place.stop
        batch["position_ids"][..., number, start:] = np.arange(length - start)
    batch["boundaries"] = boundaries(batch["segments"])
    return finished(batch, samples, entries, [len(row) for row in conversations], shared)


def boundaries(segments: Numbers) -> NDArray[np.int32]:
    """(P + 1,): where the samples of rows (B, S) that stand one behind the other begin, and where the last one ends, as kernels of
    variable length take them. What fills a row up is a sample of its own."""
    begins = np.ones(segments.shape, bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return np.append(begins.ravel().nonzero()[0], segments.size).astype(np.int32)


def finished(
    rows: dict[str, NDArray[Any]], samples: Sequence[PreparedSample], entries: Entries, counts: Sequence[int], shared: bool = False
) -> Batch:
    """Tensors: the rows, which columns of theirs are supervised, and the pixels of all images. counts: conversations in each row.
    shared: as `rows_of` has it."""
    batch = {name: torch.from_numpy(value) for name, value in rows.items()}
    batch["supervised"] = torch.from_numpy((rows["labels"][:, 1:] != IGNORE).any(axis=0).nonzero()[0])
    images = _all_images(samples, shared)
    if images:
        batch["pixel_values"] = joined([image.pixel_values for image in images])
        batch["grids"] = torch.cat([image.grids for image in images])
        if entries.places:
            batch["places"] = torch.tensor([place for number, image in enumerate(images) for place in _places(number, image)])
        if entries.tags is not None:
            batch["tags"] = entries.tags.rows([image.tokens for image in images])
        for number in range(len(images[0].beside)):
            batch[f"pixel_values_{number + 1}"] = joined([image.beside[number].pixel_values for image in images])
            batch[f"grids_{number + 1}"] = torch.cat([image.beside[number].grids for image in images])
    return Batch(batch, contents=contents(samples, counts, shared))


def _all_images(samples: Sequence[PreparedSample], shared: bool) -> list[RenderedImage]:
    """In the order of their visual tokens."""
    images = [image for sample in samples for image in sample.images]
    return list({id(image): image for image in images}.values()) if shared else images


def contents(samples: Sequence[PreparedSample], counts: Sequence[int], shared: bool = False) -> Contents:
    """Which images the rows show, of which the first holds so many conversations, and so on: where some are shared, also those between."""
    images = _all_images(samples, shared)
    number_of = {id(image): number for number, image in enumerate(images)}
    shown = []
    for image in images:
        sets = [Pixels(image.pixel_values, image.grids), *image.beside]
        shown.append(Shown(image.tokens.count, tuple(len(one.pixel_values) for one in sets), tuple(len(one.grids) for one in sets)))
    ranges, first = [], 0
    for sample in samples:
        numbers = [number_of[id(image)] for image in sample.images] if shared else range(first, first + len(sample.images))
        ranges += [(min(numbers), max(numbers) + 1) if numbers else (first, first)] * len(sample.layouts)
        first = max([first, *(number + 1 for number in numbers)])
    rows, start = [], 0
    for count in counts:
        of_row = ranges[start : start + count]
        rows.append((min(begin for begin, _ in of_row), max(end for _, end in of_row)) if of_row else (0, 0))
        start += count
    return Contents(tuple(shown), tuple(rows))


def _places(number: int, image: RenderedImage) -> list[tuple[int, ...]]:
    """Image, tile row, tile column, milliseconds and padding of each view: of a film frame by frame, or of films that each are one view,
    from their start."""
    plan = image.tokens.plan
    times = plan.times if len(image.grids) > len(plan.places) else (plan.times or (0.0,))[:1]
    views = list(zip(plan.places, plan.padding, strict=True))
    return [(number, *at, round(1000 * time), *padding) for time in times for at, padding in views]


def joined(patches: Sequence[Tensor]) -> Tensor:
    """One behind the other; without a copy where they stand like that in memory already, as those of `room` do."""
    first, end = patches[0], patches[0].data_ptr()
    for part in patches:
        if part.data_ptr() != end or not part.is_contiguous():
            return torch.cat(list(patches))
        end += part.nbytes
    storage = first.untyped_storage()
    if end > storage.data_ptr() + storage.nbytes():
        return torch.cat(list(patches))
    return first.as_strided((sum(map(len, patches)), *first.shape[1:]), first.stride(), first.storage_offset())
