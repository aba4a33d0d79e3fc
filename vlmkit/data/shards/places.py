"""Where shards lie: a folder, or an address such as s3://bucket/folder that fsspec reads."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from vlmkit.data.sample import DataError
from vlmkit.data.shards import stores

_ADDRESS = re.compile(r"[A-Za-z][\w.+-]*(://|::)")
_LOCAL = re.compile(r"(file|local)://")


@dataclass(frozen=True)
class Address:
    """What `Path` is for a folder, as far as reading needs it."""

    url: str

    def __str__(self) -> str:
        return self.url

    def __truediv__(self, name: str) -> Address:
        """Of a chain such as zip://folder::s3://bucket/file.zip the first part that has a path is the one that grows."""
        parts = self.url.split("::")
        number = next(number for number, part in enumerate(parts) if "://" in part)
        root = parts[number] if parts[number].endswith("://") else parts[number].rstrip("/") + "/"
        return Address("::".join([*parts[:number], root + name, *parts[number + 1 :]]))

    @property
    def name(self) -> str:
        path = next(part for part in self.url.split("::") if "://" in part).partition("://")[2]
        return path.rstrip("/").rpartition("/")[2]

    def resolve(self) -> Address:
        return self

    def is_file(self) -> bool:
        return stores.kind(str(self)) == "file"

    def is_dir(self) -> bool:
        return stores.kind(str(self)) == "directory"

    def read_text(self, encoding: str) -> str:
        return stores.read(str(self)).decode(encoding)

    def read(self, offset: int, length: int) -> bytes:
        return stores.read(str(self), offset, length)


Place = Path | Address


def place(given: Place | str) -> Place:
    """The folder or address that a text names; file:// is a folder. Raises DataError for an address without a path."""
    if not isinstance(given, str) or not _ADDRESS.match(given):
        return Path(given) if isinstance(given, str) else given
    if local := _LOCAL.match(given):
        return Path(given[local.end() :])
    if "://" not in given:
        raise DataError(f"{given!r} is no address: expected one with ://, such as s3://bucket/folder")
    return Address(given.rstrip("/") if not given.endswith("://") else given)


def folder(given: Path | str) -> Path:
    """The folder that a text names, where something is to be written. Raises DataError for an address."""
    found = place(given)
    if isinstance(found, Address):
        raise DataError(
            f"shards are written to a folder of this machine, got {str(found)!r}: name one, and copy it to the store when it is "
            "finished (aws s3 sync, gcloud storage rsync, hf upload)"
        )
    return found
