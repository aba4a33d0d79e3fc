"""What is known of an encoded picture before it is decoded, and the bounds that it has to keep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from PIL import Image

from vlmkit.preprocess.bounds import MAX_PIXELS, check_pixels, check_sides
from vlmkit.preprocess.image_errors import Flaw, ImageError


@dataclass(frozen=True, kw_only=True)
class Survey:
    """One picture as its file describes it."""

    format: str
    height: int
    """As stored, before it is turned upright."""
    width: int
    weight: float
    """What a pixel costs, in pixels of the cheapest kind."""
    header: Callable[[], Image.Image]
    """Opened and not decoded: orientation and colour profile. Cheap."""
    load: Callable[[], Image.Image]
    """The decoded picture, not yet upright or in RGB. Raises Flaw where a pixel of it was not in the file, and nearly anything
    else on bad bytes."""
    coded: int = 0
    """Bytes of coded pixels, where their number bounds the time."""
    most_coded: int = 1 << 30


def check_bounds(found: Survey, name: str, max_pixels: int) -> None:
    """Raises ImageError where a picture is larger than what is opened."""
    check_sides(found.height, found.width, name)
    check_pixels(found.height, found.width, name, max_pixels)
    most = int(max(MAX_PIXELS, max_pixels) / found.weight)
    check_pixels(found.height, found.width, name, most, f" of this kind of {found.format}")
    most = max(1, max_pixels // MAX_PIXELS) * found.most_coded
    if found.coded > most:
        raise ImageError(
            f"{name} holds {found.coded} bytes of {found.format}, expected at most {most}, which take seconds to decode; "
            "save it as JPEG or PNG, or pass a larger max_pixels if you trust it"
        )


def number(data: bytes, at: int, length: int, order: str = "big") -> int:
    """An unsigned number of so many bytes. Raises Flaw where the file ends before."""
    if at < 0 or at + length > len(data):
        raise Flaw(f"it ends at byte {len(data)}, in its header")
    return int.from_bytes(data[at : at + length], "little" if order == "little" else "big")
