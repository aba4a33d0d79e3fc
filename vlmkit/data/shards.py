"""Samples in shards: ordinary WebDataset tars beside an index, so that any sample is one read away.

shards = Shards("packed/coco")
len(shards), shards[7], shards.image_sizes(7)       # the last without reading a shard
"""

from __future__ import annotations

import functools
import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from vlmkit.data.index import Index, Shard, Summary, open_index
from vlmkit.data.members import from_members
from vlmkit.data.rejections import Rejections
from vlmkit.data.sample import DataError, Sample
from vlmkit.data.shard_writer import ShardWriter
from vlmkit.preprocess.geometry import Size

__all__ = ["ShardWriter", "Shards"]

OPEN_SHARDS = 64
"""Shards kept open at once."""


class Shards(Sequence[Sample]):
    """Samples by number, images as bytes, for several threads and processes at once."""

    def __init__(self, directory: Path | str) -> None:
        """Raises DataError where the directory holds no whole index."""
        self.directory = Path(directory).resolve()
        self._index: Index = open_index(self.directory)
        self._rows = {name: self._index.rows[name] for name in self._index.rows.dtype.names or ()}
        self._open = functools.lru_cache(maxsize=OPEN_SHARDS)(_File)

    def __reduce__(self) -> tuple[type[Shards], tuple[Path]]:
        return Shards, (self.directory,)

    def __repr__(self) -> str:
        return f"<{len(self):,} samples, {self.summary.images:,} images in {len(self.summary.shards):,} shards of {str(self.directory)!r}>"

    @property
    def summary(self) -> Summary:
        """Shards, sources, counts, and what was left out."""
        return self._index.summary

    @property
    def rejections(self) -> Rejections:
        """What was left out when the samples were packed."""
        return Rejections.from_json(json.dumps(self.summary.rejections))

    def __len__(self) -> int:
        return self.summary.samples

    @overload
    def __getitem__(self, number: int, /) -> Sample: ...
    @overload
    def __getitem__(self, number: slice, /) -> list[Sample]: ...
    def __getitem__(self, number: int | slice, /) -> Sample | list[Sample]:
        """One sample is one read. Raises DataError for a shard that is not what was written."""
        if isinstance(number, slice):
            return [self[place] for place in range(*number.indices(len(self)))]
        return self._read(number, with_images=True)

    def without_images(self, number: int) -> Sample:
        """The sample with no images: what is said about them, at the cost of a few kilobytes."""
        return self._read(number, with_images=False)

    def image_sizes(self, number: int) -> tuple[Size, ...]:
        """Of every image, upright, as `open_image` gives it."""
        row = self._place(number)
        first = int(self._rows["first_image"][row])
        found = self._index.sizes[first : first + int(self._rows["images"][row])]
        return tuple(Size(height, width) for height, width in found.tolist())

    def text_bytes(self, number: int) -> int:
        """Bytes of UTF-8 that all conversations say."""
        return int(self._rows["text_bytes"][self._place(number)])

    def source(self, number: int) -> str:
        """The data set that the sample is of."""
        return self.summary.sources[int(self._rows["source"][self._place(number)])]

    @property
    def tables(self) -> Index:
        """The tables themselves, for what looks at all samples."""
        return self._index

    def _place(self, number: int) -> int:
        place = number + len(self) if number < 0 else number
        if not 0 <= place < len(self):
            raise IndexError(f"{self.directory} has {len(self)} samples, asked for number {number}")
        return place

    def _read(self, number: int, *, with_images: bool) -> Sample:
        row = self._place(number)
        offset, text, pictures = (int(self._rows[name][row]) for name in ("offset", "text", "pictures"))
        shard = self.summary.shards[int(self._rows["shard"][row])]
        data = self._open(self.directory, shard).read(offset, text + pictures if with_images else text)
        words, images = data[:text], data[text:]
        sound = zlib.crc32(words) == self._rows["text_check"][row]
        if not sound or (with_images and zlib.crc32(images) != self._rows["pictures_check"][row]):
            raise DataError(f"{self.directory / shard.name}, sample {number}: the bytes are not those that were written; pack again")
        return from_members(words, images)


class _File:
    """A shard that is read from several threads and processes: no place in it is shared. Closed with its last user."""

    def __init__(self, directory: Path, shard: Shard) -> None:
        self.path = path = directory / shard.name
        try:
            self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise DataError(f"{path} is not there, though the index names it; pack the data again") from None
        if (found := os.fstat(self.number).st_size) != shard.bytes:
            raise DataError(f"{path} has {found} bytes, the index says {shard.bytes}; was it copied to its end?")

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)

    def read(self, offset: int, length: int) -> bytes:
        pieces: list[bytes] = []
        while length and (piece := os.pread(self.number, length, offset)):
            pieces.append(piece)
            offset, length = offset + len(piece), length - len(piece)
        if length:
            raise DataError(f"{self.path} ends at byte {offset}, {length} bytes early")
        return b"".join(pieces) if len(pieces) != 1 else pieces[0]
