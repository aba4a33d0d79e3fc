"""Windows: so many consecutive samples of the order, planned and packed together, whatever comes before or after.

A window follows from its number alone. That is why a run goes on from a window and a row without reading what was before,
and why several processes can share a mixture: each plans the windows that it needs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol

from vlmkit.data.mixture.order import Order
from vlmkit.data.mixture.prepare import OverlongError, PlannedPiece, Preparer
from vlmkit.data.mixture.state import Position
from vlmkit.data.packing import first_fit
from vlmkit.data.rejections import Rejections
from vlmkit.data.sample import DataError, Rejected, Sample
from vlmkit.layout.laid_out import LayoutError
from vlmkit.preprocess.geometry import ImageSizeError, Size
from vlmkit.preprocess.images import ImageError, image_size

TOGETHER = 64
"""Samples that are read before the first of them is planned. By turns, planning takes a fifth longer: Python is slow for a
while after each call to the system."""


class Samples(Protocol):
    """Samples by number, for several threads and processes at once. Where there is also `image_sizes(number)`,
    `without_images(number)` and `images(number)`, as shards have them, samples are planned without an image being read, and
    images are read without the words."""

    def __len__(self) -> int: ...
    def __getitem__(self, number: int, /) -> Sample: ...


class Part(NamedTuple):
    """A piece, and where its sample is."""

    source: int
    sample: int
    id: str
    piece: PlannedPiece


PlannedRow = tuple[Part, ...]


@dataclass
class Window:
    rows: list[PlannedRow]
    rejected: Rejections
    cut: Rejections


class Windows:
    """All windows of a mixture, by number."""

    def __init__(self, order: Order, sources: Sequence[tuple[str, Samples]], preparer: Preparer, size: int) -> None:
        """size: samples of a window."""
        self.order = order
        self.sources = sources
        self.preparer = preparer
        self.size = size

    @property
    def number(self) -> int | None:
        """How many there are; None where the order does not end."""
        return None if self.order.length is None else -(-self.order.length // self.size)

    def __getitem__(self, window: int) -> Window:
        """Plan and pack. Raises DataError for a sample that is too long where that is an error, and OSError as it comes:
        storage that fails is no bad sample, and may work in a minute."""
        rejected, cut = Rejections(), Rejections()
        seen: Counter[int] = Counter()
        parts: list[Part] = []
        places = self._places(window)
        for begin in range(0, len(places), TOGETHER):
            together = [self.order[place] for place in places[begin : begin + TOGETHER]]
            seen.update(source for source, _, _ in together)
            read = [(source, number, self._read(source, number, rejected)) for source, number, _ in together]
            for source, number, found in read:
                if found is not None:
                    parts += self._plan(source, number, *found, rejected, cut)
        for source, number in seen.items():
            rejected.seen(self.sources[source][0], number)
            cut.seen(self.sources[source][0], number)
        preparer = self.preparer
        if not preparer.pack:
            return Window([(part,) for part in parts], rejected, cut)
        assert preparer.length is not None
        packed = first_fit([part.piece.length for part in parts], preparer.length)
        rows = [tuple(parts[number] for number in row) for row in packed]
        # First-fit begins with the longest samples; they are spread over the window again.
        random.Random(f"{self.order.seed} {window}").shuffle(rows)
        return Window(rows, rejected, cut)

    def _places(self, window: int) -> range:
        end = (window + 1) * self.size
        return range(window * self.size, end if self.order.length is None else min(end, self.order.length))

    def _read(self, source: int, number: int, rejected: Rejections) -> tuple[Sample, Sequence[Size]] | None:
        """A sample, of which only the words are needed, and the sizes of its images."""
        name, samples = self.sources[source]
        try:
            return _without_images(samples, number)
        except ValueError as error:
            rejected.add(_rejected(name, str(number), error))
            return None

    def _plan(self, source: int, number: int, sample: Sample, sizes: Sequence[Size], rejected: Rejections, cut: Rejections) -> list[Part]:
        name, label = self.sources[source][0], sample.id
        try:
            planned = self.preparer.plan(sample.conversations, sizes)
        except OverlongError as error:
            raise OverlongError(f"{name}, sample {label}: {error}") from None
        except ValueError as error:
            rejected.add(_rejected(name, label, error))
            return []
        if planned.rejected is not None:
            rejected.add(Rejected(name, label, planned.rejected[0], f"sample {label}: {planned.rejected[1]}"))
        if planned.cut is not None:
            cut.add(Rejected(name, label, planned.cut[0], f"sample {label}: {planned.cut[1]}"))
        return [Part(source, number, label, piece) for piece in planned.pieces]


def _without_images(samples: Any, number: int) -> tuple[Sample, Sequence[Size]]:
    if hasattr(samples, "image_sizes"):
        text = samples.without_images if hasattr(samples, "without_images") else samples.__getitem__
        return text(number), samples.image_sizes(number)
    sample: Sample = samples[number]
    return replace(sample, images=()), [image_size(image) for image in sample.images]


def _rejected(source: str, label: str, error: ValueError) -> Rejected:
    reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "sample cannot be used")
    return Rejected(source, label, reason, f"sample {label}: {error}")


_REASONS = (
    (ImageError, "image cannot be opened"),
    (ImageSizeError, "image has a size that the policy does not take"),
    (LayoutError, "conversation cannot be laid out"),
    (DataError, "sample cannot be read"),
)


@dataclass
class Taken:
    """Rows of one micro-batch, what was rejected on the way to them, and where the stream stands behind them."""

    rows: list[PlannedRow]
    position: Position
    rejected: Rejections = field(default_factory=Rejections)
    cut: Rejections = field(default_factory=Rejections)


class Stream:
    """Rows of every so-manieth window, from any position on."""

    def __init__(self, windows: Windows, position: Position, step: int, background: Executor | None) -> None:
        """background: where the next window is planned while rows of one are taken; None: here, when it is needed."""
        self.windows = windows
        self.position = position
        self.step = step
        self._background = background
        self._window: Window | None = None
        self._ahead: Future[Window] | None = None

    def take(self, count: int) -> Taken:
        """The next rows, fewer only at the end. Raises DataError where so many samples in a row were rejected that none
        may be left."""
        taken = Taken([], self.position)
        useless = 0
        while len(taken.rows) < count and not self._is_at_end():
            window = self._window = self._window or self._planned()
            if self.position.row == 0:
                taken.rejected.merge(window.rejected)
                taken.cut.merge(window.cut)
            begin, end = self.position.row, self.position.row + count - len(taken.rows)
            taken.rows += window.rows[begin:end]
            useless = 0 if window.rows else useless + self.windows.size
            if useless > max(1000, 2 * sum(self.windows.order.sizes)):
                raise DataError(f"no sample can be used, {useless} were rejected one after the other:\n{taken.rejected.report()}")
            if end < len(window.rows):
                self.position = Position(self.position.window, end)
            else:
                self.position = Position(self.position.window + self.step)
                self._window = None
        taken.position = self.position
        return taken

    def _planned(self) -> Window:
        number = self.position.window
        window = self._ahead.result() if self._ahead is not None else self.windows[number]
        following = number + self.step
        if self._background is not None:
            self._ahead = self._background.submit(self.windows.__getitem__, following) if self._exists(following) else None
        return window

    def _is_at_end(self) -> bool:
        return not self._exists(self.position.window)

    def _exists(self, window: int) -> bool:
        number = self.windows.number
        return number is None or window < number
