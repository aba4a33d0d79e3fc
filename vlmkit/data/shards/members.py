"""A sample as members of a WebDataset tar, side by side under one key, and back:

    000000042.json      {"id": ..., "source": ..., "conversations": [[{"role": "user", "content": ...}, ...], ...]}
    000000042.0.jpg     the images, byte for byte as they were
    000000042.1.png

The same sample and key give the same bytes, whoever writes them and when.
"""

from __future__ import annotations

import json
import os
import stat
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmkit.conversation import pictures, read_conversation
from vlmkit.data.sample import DataError, Image, Rejected, Sample
from vlmkit.foreign import words_of
from vlmkit.layout.laid_out import LayoutError
from vlmkit.preprocess.encoded import format_of
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.image_errors import Flaw
from vlmkit.preprocess.images import ImageError, decode, image_size

Buffer = bytes | memoryview
BLOCK = tarfile.BLOCKSIZE
MAX_BYTES = 1 << 32
"""Bound on the text and on the images of one sample, each."""
_WRITTEN = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True, slots=True)
class PackedSample:
    """One sample as it stands in a shard."""

    source: str
    text: bytes
    """The .json: header, content, padding."""
    pictures: bytes
    """The images likewise, one after the other."""
    sizes: tuple[Size, ...]
    text_bytes: int
    """Of all that is said in all conversations, in UTF-8."""
    conversations: int
    checks: tuple[int, int]
    """CRC-32 of `text` and of `pictures`."""

    @property
    def length(self) -> int:
        return len(self.text) + len(self.pictures)


def to_members(sample: Sample, key: str, *, whole: bool = True) -> PackedSample | Rejected:
    """The sample under a key without dots, or why it cannot be used.

    whole: decode every image, as training will. Otherwise only headers are read, and a file that is cut short goes unnoticed.
    """
    try:
        images = tuple(_read(image) for image in sample.images)
        sizes = tuple(_size(image, whole) for image in images)
        text, text_bytes = _text(sample)
    except _Unusable as error:
        return Rejected(sample.source, sample.id, error.reason, f"{sample.id}: {error}")
    head = member(f"{key}.json", text)
    pictures = b"".join(member(f"{key}.{number}.{ending(image)}", image) for number, image in enumerate(images))
    if max(len(head), len(pictures)) >= MAX_BYTES:
        return Rejected(sample.source, sample.id, "sample is too large", f"{sample.id}: {len(head) + len(pictures)} bytes")
    checks = zlib.crc32(head), zlib.crc32(pictures)
    return PackedSample(sample.source, head, pictures, sizes, text_bytes, len(sample.conversations), checks)


def to_sample(text: Buffer, pictures: Buffer) -> Sample:
    """The sample of what `to_members` made; where `pictures` is empty, without its images. Raises DataError for other bytes."""
    try:
        [content] = _contents(text)
        said = json.loads(str(content, "utf-8"))
        return Sample(to_images(pictures) if pictures else (), tuple(said["conversations"]), said["source"], said["id"])
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"not a sample as vlmkit writes it ({words_of(error)})") from None


def to_images(pictures: Buffer) -> tuple[bytes, ...]:
    """The images of what `to_members` made. Raises DataError for other bytes."""
    try:
        return tuple(_contents(pictures))
    except ValueError as error:
        raise DataError(f"not images as vlmkit writes them ({words_of(error)})") from None


def member(name: str, data: bytes) -> bytes:
    """Header, content and padding of one file of a tar."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % BLOCK)


def member_names(data: bytes) -> list[str]:
    """Names of files that stand one after the other, headers checked as any tool would. Raises tarfile.HeaderError."""
    names = []
    at = 0
    while at < len(data):
        info = tarfile.TarInfo.frombuf(data[at : at + BLOCK], "utf-8", "strict")
        names.append(info.name)
        at += BLOCK + info.size + -info.size % BLOCK
    if at > len(data):
        raise tarfile.HeaderError(f"{names[-1]!r} ends behind its sample")
    return names


def _contents(data: Buffer) -> Iterator[bytes]:
    """Contents of files that stand one after the other. Of a header only the length is read, which is 30 times as fast: that
    it is sound was seen when it was written, and that it is unchanged the caller sees by its checksum."""
    at = 0
    while at < len(data):
        length = int(bytes(data[at + 124 : at + 135]), 8)
        start = at + BLOCK
        at = start + length + -length % BLOCK
        yield bytes(data[start : start + length])


def ending(image: bytes) -> str:
    """What a file of this content is called. Raises ImageError where it is none that `open_image` reads."""
    try:
        return format_of(image)
    except Flaw as flaw:
        raise ImageError(f"bytes of length {len(image)} cannot be read: {flaw}") from None


class _Unusable(ValueError):  # noqa: N818 (a sample's state)
    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


def _read(image: Image) -> bytes:
    if isinstance(image, bytes):
        return image
    if not isinstance(image, Path):
        raise DataError(f"an image of a sample is a Path or bytes, got {type(image).__name__}")
    try:
        with open(image, "rb", buffering=0, opener=_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise _Unusable("image cannot be read", f"{str(image)!r} is a device, pipe or socket")
            return file.readall()
    except (FileNotFoundError, NotADirectoryError):
        raise _Unusable("image is missing", f"{str(image)!r} is not there") from None
    except _Unusable:
        raise
    except (OSError, ValueError) as error:
        raise _Unusable("image cannot be read", f"{str(image)!r}: {getattr(error, 'strerror', None) or error}") from None


def _without_waiting(path: str, flags: int) -> int:
    """As `open` opens, but a pipe is not waited for until somebody writes to it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _size(image: bytes, whole: bool) -> Size:
    try:
        ending(image)
        return Size(*decode(image).shape[:2]) if whole else image_size(image)
    except ImageError as error:
        raise _Unusable("image cannot be opened", str(error)) from None


def _text(sample: Sample) -> tuple[bytes, int]:
    """The content of the .json, and how many bytes of it are said in conversations."""
    record = {"id": sample.id, "source": sample.source, "conversations": sample.conversations}
    try:
        said = sum(map(_said, sample.conversations, [len(sample.images)] * len(sample.conversations)))
        return _WRITTEN.encode(record).encode(), said
    except UnicodeEncodeError:
        raise _Unusable("text is no Unicode", "it has half of a character") from None
    except (LayoutError, TypeError, ValueError, RecursionError) as error:
        raise _Unusable("row has wrong fields", str(error)[:300] or type(error).__name__) from None


def _said(conversation: Sequence[Any], images: int) -> int:
    turns, media = read_conversation(conversation)
    for number in pictures(media):
        if type(number) is not int or not 0 <= number < images:
            raise LayoutError(f"a conversation shows image {str(number)[:80]!r} of a sample that has {images}")
    return sum(len(part.encode()) for turn in turns for part in turn.content if isinstance(part, str))
