"""From planned rows to tensors: images are read, decoded side by side into one piece of memory, and put together."""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
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
        # A sample whose conversations stand in several rows of the batch is decoded once, and encoded once.
        first: dict[tuple[int, int, int], int] = {}
        for number, part in enumerate(parts):
            for image in part.piece.images:
                first.setdefault((part.source, part.sample, image), number)
        own = [
            [place for place, image in enumerate(part.piece.images) if first[part.source, part.sample, image] == number]
            for number, part in enumerate(parts)
        ]
        room = iter(self.processor.room([part.piece.planned[place] for part, places in zip(parts, own, strict=True) for place in places]))
        rooms = [[next(room) for _ in places] for places in own]
        side_by_side = map if self._pool is None else self._pool.map
        found = list(side_by_side(self._read, parts, own))
        shown: dict[tuple[int, int, int], RenderedImage | ValueError] = {}
        for part, places, images in zip(parts, own, side_by_side(self._render_own, parts, own, found, rooms), strict=True):
            shown |= {(part.source, part.sample, part.piece.images[place]): image for place, image in zip(places, images, strict=True)}
        made = [self._make(part, read, shown) for part, read in zip(parts, found, strict=True)]
        failed = [one for one in made if isinstance(one, Rejected)]
        left = iter(made)
        kept = [[one for one in (next(left) for _ in row) if isinstance(one, PreparedSample)] for row in rows]
        return self._batch(kept), failed

    def _read(self, part: Part, own: Sequence[int]) -> Sequence[Image] | ValueError:
        if part.piece.images and not own:
            return ()
        try:
            return images_alone(self.sources[part.source][1], part.sample)
        except OSError:  # storage that fails is no bad sample
            raise
        except ValueError as error:
            return error

    def _render_own(
        self, part: Part, own: Sequence[int], images: Sequence[Image] | ValueError, room: Sequence[Sequence[Tensor]]
    ) -> list[RenderedImage | ValueError]:
        """The images that no part before shows, or why not."""
        piece = part.piece
        made: list[RenderedImage | ValueError] = []
        for place, out in zip(own, room, strict=True):
            try:
                if isinstance(images, ValueError):
                    raise images
                made.append(self._render(images[piece.images[place]], piece.planned[place], out))
            except ValueError as error:
                made.append(error)
        return made

    def _make(
        self,
        part: Part,
        read: Sequence[Image] | ValueError,
        shown: Mapping[tuple[int, int, int], RenderedImage | ValueError],
    ) -> PreparedSample | Rejected:
        images = [shown[part.source, part.sample, image] for image in part.piece.images]
        errors = [one for one in (read, *images) if isinstance(one, ValueError)]
        if errors:
            reason = "image cannot be decoded" if isinstance(errors[0], ImageError) else "sample cannot be read"
            return Rejected(self.sources[part.source][0], part.id, reason, f"sample {part.id}: {errors[0]}")
        return PreparedSample(tuple([image for image in images if not isinstance(image, ValueError)]), part.piece.layouts)

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
