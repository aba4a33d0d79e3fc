"""An xz or lzma file unpacked within a bound of memory: its header asks for up to 4 GB, and `lzma.LZMAFile` gives what it asks for."""

from __future__ import annotations

import io
import lzma
from pathlib import Path
from typing import Any

MOST_MEMORY = 1 << 27
"""Bytes: twice what `xz -9` makes files for."""
_MAGIC = b"\xfd7zXZ\0"
_CHUNK = 1 << 16


class Unpacked(io.RawIOBase):
    """What is in the file, to be read and sought as a file. Reading raises lzma.LZMAError for one that is broken or needs more memory,
    EOFError for one that ends early."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._packed = file.open("rb")
        self._begin()

    def _begin(self) -> None:
        self._packed.seek(0)
        self._stream = lzma.LZMADecompressor(memlimit=MOST_MEMORY)
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._next(len(buffer))
        buffer[: len(data)] = data
        self._place += len(data)
        return len(data)

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        """Back to a place means from the beginning again. From the end it is not known where that is."""
        if whence == io.SEEK_END:
            raise io.UnsupportedOperation("seek from the end of a packed file")
        place += self._place if whence == io.SEEK_CUR else 0
        if place < self._place:
            self._begin()
        while self._place < place and (data := self._next(min(_CHUNK, place - self._place))):
            self._place += len(data)
        return self._place

    def tell(self) -> int:
        return self._place

    def close(self) -> None:
        self._packed.close()
        super().close()

    def _next(self, most: int) -> bytes:
        """At least a byte, unless the file ends."""
        while most:
            packed = b""
            if self._stream.eof:
                packed = self._behind(self._stream.unused_data)
                if not packed.startswith(_MAGIC):  # what is no further stream some tools leave there
                    return b""
                self._stream = lzma.LZMADecompressor(memlimit=MOST_MEMORY)
            elif self._stream.needs_input and not (packed := self._packed.read(_CHUNK)):
                raise EOFError("the file ends early")
            if data := self._stream.decompress(packed, most):
                return data
        return b""

    def _behind(self, rest: bytes) -> bytes:
        """What follows a stream and the zeros that may stand between two."""
        while len(rest := rest.lstrip(b"\0")) < len(_MAGIC) and (more := self._packed.read(_CHUNK)):
            rest += more
        return rest
