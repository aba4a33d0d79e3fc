"""From planned rows to tensors: images are read, decoded side by side into one piece of memory, and put together."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from vlmkit.batch.sample import PreparedSample, RenderedImage
from vlmkit.data.mixture.samples import Samples, images_alone
from vlmkit.data.mixture.windows import Part, PlannedRow
from vlmkit.data.sample import Image, Rejected
from vlmkit.layout.laid_out import Layout
from vlmkit.layout.pieces import ImageTokens
from vlmkit.preprocess.images import ImageError
from vlmkit.processor import VLMProcessor


class Maker(Dataset[Any]):
    """Rows -> a batch, and what could not be decoded. A worker process has one of its own."""

    def __init__(
        self, sources: Sequence[tuple[str, Samples]], processor: VLMProcessor, *, rows: int, length: int | None, threads: int
    ) -> None:
        """rows: of a batch. length: of packed rows; None: a conversation is a row of its own, padded to the longest. threads:
        that decode."""
        self.sources = sources
        self.processor = processor
        self.rows = rows
        self.length = length
        self.threads = threads
        self._pool: ThreadPoolExecutor | None = None

    def __getitem__(self, rows: Sequence[PlannedRow]) -> tuple[dict[str, Tensor], list[Rejected]]:
        if self.threads > 1 and self._pool is None:
            self._pool = ThreadPoolExecutor(self.threads)
        parts = [part for row in rows for part in row]
        room = iter(self.processor.room([planned for part in parts for planned in part.piece.planned]))
        rooms = [[next(room) for _ in part.piece.planned] for part in parts]
        side_by_side = map if self._pool is None else self._pool.map
        found = list(side_by_side(self._read, parts))
        made = list(side_by_side(self._make, parts, found, rooms))
        failed = [one for one in made if isinstance(one, Rejected)]
        left = iter(made)
        kept = [[one for one in (next(left) for _ in row) if isinstance(one, PreparedSample)] for row in rows]
        return self._batch(kept), failed

    def _read(self, part: Part) -> Sequence[Image] | ValueError:
        try:
            return images_alone(self.sources[part.source][1], part.sample)
        except OSError:  # storage that fails is no bad sample
            raise
        except ValueError as error:
            return error

    def _make(self, part: Part, images: Sequence[Image] | ValueError, room: Sequence[Sequence[Tensor]]) -> PreparedSample | Rejected:
        piece = part.piece
        try:
            if isinstance(images, ValueError):
                raise images
            shown = zip(piece.images, piece.planned, room, strict=True)
            return PreparedSample(tuple([self._render(images[number], planned, out) for number, planned, out in shown]), piece.layouts)
        except ValueError as error:
            reason = "image cannot be decoded" if isinstance(error, ImageError) else "sample cannot be read"
            return Rejected(self.sources[part.source][0], part.id, reason, f"sample {part.id}: {error}")

    def _render(self, image: Image, planned: ImageTokens, out: Sequence[Tensor]) -> RenderedImage:
        try:
            return self.processor.render_image(image, planned, out)
        except ImageError:
            raise
        except ValueError as error:
            raise ImageError(f"the image is not what its header says: {error}") from None

    def _batch(self, rows: Sequence[Sequence[PreparedSample]]) -> dict[str, Tensor]:
        processor = self.processor
        samples = [sample for row in rows for sample in row]
        if not samples:
            # A batch of which nothing is left has a row of its own, that teaches nothing.
            pad = processor.pad_token_id
            samples = [PreparedSample((), (Layout(array("q", (pad, pad)), (), (), ()),))]
            rows = [samples, *([[]] * (self.rows - 1))]
        return dict(processor.collate(samples) if self.length is None else processor.pack_rows(rows, self.length))
