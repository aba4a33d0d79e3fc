"""The bytes of an encoded picture, from a path, a data URI, a buffer or a file object."""

from __future__ import annotations

import base64
import binascii
import os
import re
import stat
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmkit.preprocess.file_urls import local_path
from vlmkit.preprocess.image_errors import ImageError, describe

MAX_BYTES = 1 << 30
"""Bound on the size of a file."""


def read(source: Any) -> bytes:
    """The bytes behind a path, data URI, buffer, file object or cell of a table. Raises ImageError."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, bytearray | memoryview):
        return bytes(source)
    if isinstance(source, Mapping):
        inner = next((source[key] for key in ("bytes", "path") if source.get(key) is not None), None)
        if not isinstance(inner, bytes | str):
            raise ImageError("a dict is no picture, expected {'bytes': ..., 'path': ...} as a table holds it, with one of the two")
        return read(inner)
    if isinstance(source, str):
        if source[:5].lower() == "data:":
            return _read_data_uri(source)
        source = local_path(source)
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", source):
            raise ImageError(f"{describe(source)} is a URL, and URLs are not fetched; download it and pass its path or bytes")
    if isinstance(source, str | os.PathLike):
        return _read_file(source)
    if callable(getattr(source, "read", None)):
        return _read_object(source)
    raise ImageError(f"{describe(source)} is no picture, expected a path, bytes, a PIL image, a numpy array or a torch tensor")


def _read_data_uri(uri: str) -> bytes:
    head, comma, body = uri.partition(",")
    if not comma or not head.lower().endswith(";base64"):
        raise ImageError(f"{describe(uri)} is a data URI without base64, expected data:image/...;base64,...")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise ImageError(f"{describe(uri)} is not valid base64, expected data:image/...;base64,...") from None


def _read_file(path: str | os.PathLike[Any]) -> bytes:
    name = describe(path)
    try:
        status = Path(os.fsdecode(path)).stat()
        if not stat.S_ISREG(status.st_mode):
            kind = "a directory" if stat.S_ISDIR(status.st_mode) else "a device, pipe or socket"
            raise ImageError(f"{name} is {kind}, expected the path of a picture file")
        if status.st_size > MAX_BYTES:
            raise ImageError(f"{name} has {status.st_size} bytes, expected at most {MAX_BYTES}; is it a picture?")
        with open(path, "rb") as file:
            return file.read(status.st_size)
    except FileNotFoundError:
        raise ImageError(f"{name} does not exist, expected the path of a picture file") from None
    except ImageError:
        raise
    except (OSError, ValueError, TypeError) as error:
        reason = getattr(error, "strerror", None) or "not a valid path"
        raise ImageError(f"{name} cannot be opened ({reason}), expected the path of a picture file") from None


def _read_object(file: Any) -> bytes:
    try:
        if getattr(file, "seekable", bool)():
            file.seek(0)
        pieces, length = [], 0
        while piece := file.read(1 << 20):
            if not isinstance(piece, bytes | bytearray | memoryview):
                raise ImageError(f"{describe(file)} gives {type(piece).__name__}, expected bytes; open it in mode 'rb'")
            pieces.append(bytes(piece))
            length += len(piece)
            if length > MAX_BYTES:
                raise ImageError(f"{describe(file)} has more than {MAX_BYTES} bytes; is it a picture?")
        return b"".join(pieces)
    except ImageError:
        raise
    except Exception as error:
        raise ImageError(f"{describe(file)} cannot be read ({type(error).__name__}), expected a binary file opened for reading") from None
