"""The formats that are read, and which one bytes are in."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from vlmkit.preprocess.encoded import bmp, boxes, gif, ico, jpeg, jpeg2000, netpbm, png, tga, tiff, webp
from vlmkit.preprocess.encoded.surveys import Survey
from vlmkit.preprocess.endings import BY_FORMAT
from vlmkit.preprocess.image_errors import Flaw


class Format(NamedTuple):
    name: str
    accepts: Callable[[bytes], bool]
    survey: Callable[[bytes], Survey]
    """Raises Flaw for what is not this format or lacks a part."""


_ALL = (
    Format("JPEG", jpeg.accepts, jpeg.survey),
    Format("PNG", png.accepts, png.survey),
    Format("WEBP", webp.accepts, webp.survey),
    Format("GIF", gif.accepts, gif.survey),
    Format("BMP", bmp.accepts, bmp.survey),
    Format("TIFF", tiff.accepts, tiff.survey),
    Format("AVIF", boxes.accepts_avif, boxes.survey_avif),
    Format("HEIC", boxes.accepts_heic, boxes.survey_heic),
    Format("JPEG 2000", jpeg2000.accepts, jpeg2000.survey),
    Format("PPM", netpbm.accepts, netpbm.survey),
    Format("ICO", ico.accepts, ico.survey),
    # Last: it has no sign of its own, only a header that has to make sense.
    Format("TGA", tga.accepts, tga.survey),
)
FORMATS = tuple(format.name for format in _ALL)
"""What is read; HEIC where pillow-heif is installed. Other decoders of Pillow are never reached."""


def survey(data: bytes) -> Survey:
    """What is known of an encoded picture before it is decoded. Raises Flaw."""
    return _format(data).survey(data)


def format_of(data: bytes) -> str:
    """How a file of this content ends its name, by how it begins: 'jpg'. Raises Flaw where it is none that is read."""
    return BY_FORMAT[_format(data).name][0]


def _format(data: bytes) -> Format:
    found = next((format for format in _ALL if format.accepts(data)), None)
    if found is None:
        raise Flaw(f"no picture begins with {data[:8]!r}")
    return found
