"""Samples in shards: ordinary WebDataset tars beside an index, so that any sample is one read away.

shards = Shards("packed/coco")                      # or s3://bucket/coco, gs://, hf://: any address that fsspec reads
len(shards), shards[7], shards.image_sizes(7)       # the last without reading a shard
"""

from __future__ import annotations

import errno
import functools
import json
import os
import stat
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import overload

from vlmkit.data.rejections import Rejections
from vlmkit.data.sample import DataError, Sample
from vlmkit.data.shards.index import Index, IndexRow, Shard, Summary, open_index
from vlmkit.data.shards.members import to_images, to_sample
from vlmkit.data.shards.places import Address, Place, place
from vlmkit.data.shards.writer import ShardWriter
from vlmkit.preprocess.geometry import Size

__all__ = ["ShardWriter", "Shards"]

_PASSING = (errno.EMFILE, errno.ENFILE, errno.EIO, errno.ENOMEM, errno.ESTALE, errno.ETIMEDOUT)
"""Troubles of the machine and not of the data: a run stops, and can go on later."""
OPEN_SHARDS = 64
"""Shards kept open at once."""


class Shards(Sequence[Sample]):
    """Samples by number, images as bytes, for several threads and processes at once."""

    def __init__(self, directory: Place | str) -> None:
        """directory: a folder, or an address that fsspec reads. Raises DataError where it holds no whole index, StoreError
        where a store fails again and again."""
        try:
            self.directory: Place = place(directory).resolve()
            self._index: Index = open_index(self.directory)
        except DataError:
            raise
        except (OSError, RuntimeError, ValueError) as error:  # a link that leads round, a name that no file can have
            raise DataError(f"{str(directory)!r:.200} cannot be opened: {getattr(error, 'strerror', None) or error}") from None
        self._open = functools.lru_cache(maxsize=OPEN_SHARDS)(functools.partial(_open, self.directory, self.summary.shards))

    def __reduce__(self) -> tuple[type[Shards], tuple[Place]]:
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
        row = self._row(number)
        data = self._read(row, row.offset, row.text + row.pictures)
        words, pictures = data[: row.text], data[row.text :]
        self._check(number, row, words, row.text_check)
        self._check(number, row, pictures, row.pictures_check)
        return to_sample(words, pictures)

    def without_images(self, number: int) -> Sample:
        """The sample with no images: what is said about them, at the cost of a few kilobytes. Raises DataError."""
        row = self._row(number)
        words = self._read(row, row.offset, row.text)
        self._check(number, row, words, row.text_check)
        return to_sample(words, b"")

    def images(self, number: int) -> tuple[bytes, ...]:
        """The images of a sample alone. Raises DataError."""
        row = self._row(number)
        pictures = self._read(row, row.offset + row.text, row.pictures)
        self._check(number, row, pictures, row.pictures_check)
        return to_images(pictures)

    def image_sizes(self, number: int) -> tuple[Size, ...]:
        """Of every image, upright, as `open_image` gives it."""
        row = self._row(number)
        return tuple(Size(height, width) for height, width in self._index.sizes_of(row))

    def text_bytes(self, number: int) -> int:
        """Bytes of UTF-8 that all conversations say."""
        return self._row(number).text_bytes

    def source(self, number: int) -> str:
        """The data set that the sample is of."""
        return self.summary.sources[self._row(number).source]

    @property
    def tables(self) -> Index:
        """The tables themselves, for what looks at all samples. Raises DataError where they are not what was written."""
        self._index.check()
        return self._index

    def _row(self, number: int) -> IndexRow:
        place = number + len(self) if number < 0 else number
        if not 0 <= place < len(self):
            raise IndexError(f"{self.directory} has {len(self)} samples, asked for number {number}")
        return self._index.row(place)

    def _read(self, row: IndexRow, offset: int, length: int) -> memoryview:
        return memoryview(self._open(row.shard).read(offset, length))

    def _check(self, number: int, row: IndexRow, data: memoryview, checksum: int) -> None:
        if zlib.crc32(data) != checksum:
            shard = self.directory / self.summary.shards[row.shard].name
            raise DataError(f"{shard}, sample {number}: the bytes are not those that were written; pack again")


def _open(directory: Place, shards: Sequence[Shard], number: int) -> _File | Address:
    # Of a store nothing is asked that the first sample does not tell: that a shard is not there, or ends early.
    return directory / shards[number].name if isinstance(directory, Address) else _File(directory, shards[number])


class _File:
    """A shard that is read from several threads and processes: no place in it is shared. Closed with its last user."""

    def __init__(self, directory: Path, shard: Shard) -> None:
        self.path = path = directory / shard.name
        try:
            # Without waiting: it may be a pipe.
            self.number = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            raise DataError(f"{path} is not there, though the index names it; pack the data again") from None
        except OSError as error:
            if error.errno in _PASSING:
                raise
            raise DataError(f"{path} cannot be opened ({error.strerror}); see that it is a file that may be read") from None
        status = os.fstat(self.number)
        if not stat.S_ISREG(status.st_mode):
            raise DataError(f"{path} is no file; pack the data again")
        if (found := status.st_size) != shard.bytes:
            raise DataError(f"{path} has {found} bytes, the index says {shard.bytes}; was it copied to its end?")

    def __del__(self) -> None:
        if hasattr(self, "number"):
            os.close(self.number)

    def read(self, offset: int, length: int) -> bytes:
        data = os.pread(self.number, length, offset)
        while len(data) < length:  # a signal came, or it is more than the system reads at once
            piece = os.pread(self.number, length - len(data), offset + len(data))
            if not piece:
                raise DataError(f"{self.path} ends at byte {offset + len(data)}, {length - len(data)} bytes early")
            data += piece
        return data
