"""Windows: a fixed number of consecutive samples of the order, planned and packed together, whatever comes before or after.

A window follows from its number alone. That is why a run goes on from a window and a row without reading what was before,
and why several processes can share a mixture: each plans the windows that it needs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from vlmkit.data.mixture.order import Order
from vlmkit.data.mixture.prepare import OverlongError, PlannedPiece, Preparer
from vlmkit.data.mixture.samples import Samples, words_and_sizes
from vlmkit.data.packing import first_fit
from vlmkit.data.rejections import Rejections
from vlmkit.data.sample import DataError, Rejected, Sample
from vlmkit.layout.laid_out import LayoutError
from vlmkit.preprocess.geometry import ImageSizeError, Size
from vlmkit.preprocess.images import ImageError

TOGETHER = 64
"""Samples that are read before the first of them is planned. Reading and planning by turns takes a fifth longer: Python is
slow for a while after each call to the system."""


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
            return words_and_sizes(samples, number)
        except OSError:  # also where a store's is a DataError too
            raise
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


def _rejected(source: str, label: str, error: ValueError) -> Rejected:
    reason = next((reason for kind, reason in _REASONS if isinstance(error, kind)), "sample cannot be used")
    return Rejected(source, label, reason, f"sample {label}: {error}")


_REASONS = (
    (ImageError, "image cannot be opened"),
    (ImageSizeError, "image has a size that the policy does not take"),
    (LayoutError, "conversation cannot be laid out"),
    (DataError, "sample cannot be read"),
)
