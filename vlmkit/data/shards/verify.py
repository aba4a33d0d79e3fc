"""Reading a shard back before it counts."""

from __future__ import annotations

import os
import tarfile
import zlib
from pathlib import Path

import numpy as np

from vlmkit.data.sample import DataError
from vlmkit.data.shards.index import Table
from vlmkit.data.shards.members import BLOCK, member_names

END = bytes(2 * BLOCK)
"""What a tar ends with."""


def verify_again(shard: Path, rows: Path) -> None:
    """`verify`, with the table that was noted of it."""
    verify(shard, np.load(rows, mmap_mode="r"))


def verify(shard: Path, rows: Table) -> None:
    """Read a shard back from disk, once from front to back. Raises DataError where it is not the tar that the rows say."""
    with open(shard, "rb") as file:
        if hasattr(os, "posix_fadvise"):  # or it would come from memory, whatever is on the disk
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for number, row in enumerate(rows):
            here = file.tell()
            text, pictures = file.read(row["text"]), file.read(row["pictures"])
            try:
                names = member_names(text + pictures)
            except tarfile.HeaderError:
                names = []
            same = (here, zlib.crc32(text), zlib.crc32(pictures)) == (row["offset"], row["text_check"], row["pictures_check"])
            if not same or len(names) != 1 + row["images"] or len({name.partition(".")[0] for name in names}) != 1:
                raise DataError(f"{shard}: sample {number} was read back other than it was written; is the disk sound?")
        rest = file.read()
        if len(rest) < len(END) or rest.strip(b"\0"):
            raise DataError(f"{shard}: its end was read back other than it was written; is the disk sound?")
