"""AVIF and HEIC: boxes of ISO 14496-12, told apart by the brands of the first.

The size stands deep inside; libavif reads it without decoding, and refuses what is cut short. HEIC is read by pillow-heif where that is
installed.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable

from PIL import Image

from vlmkit.preprocess.bounds import MAX_EXIF
from vlmkit.preprocess.encoded.surveys import Survey, number
from vlmkit.preprocess.encoded.whole import loaded, opened
from vlmkit.preprocess.image_errors import Flaw

_AVIF = (b"avif", b"avis")
_HEIC = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1", b"heif")
_WEIGHT = 5.0
_MOST_CODED = 1 << 24
_MOST_BOXES = 1000


def accepts_avif(data: bytes) -> bool:
    return any(brand in _AVIF for brand in _brands(data))


def accepts_heic(data: bytes) -> bool:
    return any(brand in _HEIC for brand in _brands(data))


def survey_avif(data: bytes) -> Survey:
    _check_ends(data)
    image = opened("AVIF", data)
    if len(image.info.get("exif", b"")) > MAX_EXIF:
        raise Flaw(f"it has {len(image.info['exif'])} bytes of Exif, expected at most {MAX_EXIF}")
    return _survey("AVIF", image, data, functools.partial(loaded, "AVIF", data, image.size))


def survey_heic(data: bytes) -> Survey:
    _check_ends(data)
    return _survey("HEIC", _heic(data), data, lambda: _heic(data, load=True))


def _survey(format: str, image: Image.Image, data: bytes, load: Callable[[], Image.Image]) -> Survey:
    return Survey(
        format=format,
        height=image.height,
        width=image.width,
        weight=_WEIGHT,
        header=lambda: image,
        load=load,
        coded=len(data),
        most_coded=_MOST_CODED,
    )


def _heic(data: bytes, load: bool = False) -> Image.Image:
    try:
        from pillow_heif import HeifImageFile
    except ImportError:
        raise Flaw("it is HEIC, which needs pillow-heif: pip install 'vlmkit[heic]', or save it as JPEG") from None
    image: Image.Image = HeifImageFile(io.BytesIO(data))
    if load:
        image.load()
    return image


def _brands(data: bytes) -> tuple[bytes, ...]:
    if data[4:8] != b"ftyp":
        return ()
    end = min(int.from_bytes(data[:4], "big"), 256)
    return (data[8:12], *(data[at : at + 4] for at in range(16, end - 3, 4)))


def _check_ends(data: bytes) -> None:
    """Raises Flaw where a box at the top goes on behind the file."""
    at = count = 0
    while at < len(data):
        length, count = number(data, at, 4), count + 1
        if length == 1:
            length = number(data, at + 8, 8)
        if length == 0:
            return
        if length < 8 or at + length > len(data):
            raise Flaw(f"it ends at byte {len(data)}, in a box {data[at + 4 : at + 8]!r} of {length} bytes")
        if count > _MOST_BOXES:
            raise Flaw(f"it has more than {_MOST_BOXES} boxes")
        at += length
