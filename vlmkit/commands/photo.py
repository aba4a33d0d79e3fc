"""Photographs on the command line: a file, or only its size."""

from __future__ import annotations

import re
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from typing import TYPE_CHECKING

from vlmkit.commands import UsageError
from vlmkit.preprocess.geometry import Size

if TYPE_CHECKING:
    from vlmkit.preprocess.images import ImageError


def add_size_option(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--size",
        metavar="WIDTHxHEIGHT",
        dest="sizes",
        type=read_size,
        action="append",
        default=[],
        help="a size in place of a photo, width first: 640x480 is a landscape; repeatable",
    )


def read_size(text: str) -> Size:
    """'640x480' -> Size(height=480, width=640)."""
    found = re.fullmatch(r"\s*0*([1-9]\d{0,8})\s*[xX\u00d7*]\s*0*([1-9]\d{0,8})\s*", text)
    if found is None:
        raise ArgumentTypeError(f"expected WIDTHxHEIGHT in pixels such as 640x480, got {text!r}")
    return Size(height=int(found[2]), width=int(found[1]))


def named_sizes(arguments: Namespace) -> list[tuple[str, Size | ImageError]]:
    """Photos and sizes of a command line, each with what to call it; of a photo that cannot be read, why not. Raises UsageError
    where there are none, and no films either."""
    if not arguments.photos and not arguments.sizes and not getattr(arguments, "videos", None):
        raise UsageError("name a photo, or a size such as --size 640x480")
    photos = [(photo, _size_or_error(photo)) for photo in arguments.photos]
    return [*photos, *((across(size), size) for size in arguments.sizes)]


def _size_or_error(path: str) -> Size | ImageError:
    from vlmkit.preprocess.images import ImageError

    try:
        return photo_size(path)
    except ImageError as error:
        return error


def photo_size(path: str) -> Size:
    """Height and width of a photo as `open_image` gives it, upright, from its header alone where that suffices."""
    from vlmkit.preprocess.images import image_size

    return image_size(path)


def across(size: Size) -> str:
    """Width first, as people write it: '640x480'."""
    return f"{size.width}x{size.height}"
