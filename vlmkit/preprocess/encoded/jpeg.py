"""JPEG (ISO 10918): segments are walked, scans counted; a decoder that fills in what is missing says so, and that is an error.

libjpeg fills the rest of a picture with grey where its data ends, and goes on behind broken codes; it says so in warnings, which
Pillow does not hand on and simplejpeg does. Where simplejpeg is not installed such files are not noticed.
"""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

from vlmkit.preprocess import jpeg, jpeg_scans
from vlmkit.preprocess.bounds import LAYERED, MAX_EXIF, MAX_PROFILE
from vlmkit.preprocess.encoded.surveys import Survey
from vlmkit.preprocess.encoded.whole import loaded, opened
from vlmkit.preprocess.image_errors import Flaw

_ARITHMETIC, _ARITHMETIC_WEIGHT = frozenset((0xC9, 0xCA)), 8.0
_APP0, _APP1, _APP2, _APP14, _COMMENT = 0xE0, 0xE1, 0xE2, 0xEE, 0xFE
_BANDS = {1: "GRAY", 3: "RGB"}


def accepts(data: bytes) -> bool:
    return data.startswith(b"\xff\xd8")


def survey(data: bytes) -> Survey:
    frame, head = _header(data)
    scans = jpeg_scans.scans_of(data)
    if scans.count > jpeg_scans.MAX_SCANS:
        raise Flaw(f"it is a JPEG of more than {jpeg_scans.MAX_SCANS} scans, where about 10 are usual; save it again as a baseline JPEG")
    height, width = int.from_bytes(frame[2:4], "big"), int.from_bytes(frame[4:6], "big")
    weight = jpeg_scans.weight_of(frame[1:], scans.count)
    return Survey(
        format="JPEG",
        height=height,
        width=width,
        weight=max(weight, _ARITHMETIC_WEIGHT if frame[0] in _ARITHMETIC else 0, LAYERED if frame[6] == 4 else 0),
        header=functools.partial(opened, "JPEG", head),
        load=functools.partial(_loaded, data, head, (width, height), scans.lacking),
    )


def _header(data: bytes) -> tuple[bytes, bytes]:
    """The frame header behind its marker's number, and the segments that make the picture up to the first scan's."""
    frame, kept, exif, profile = b"", [b"\xff\xd8"], [], 0
    for marker, segment in jpeg_scans.segments(data):
        body = segment[4:]
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if frame or len(body) < 6 + 3 * body[5]:
                raise Flaw("it has a broken frame header")
            frame = bytes([marker]) + body
        if marker == _APP1 and body.startswith(b"Exif\0\0"):
            exif.append(len(body))
        profile += len(body) if marker == _APP2 and body.startswith(b"ICC_PROFILE\0") else 0
        wanted = marker in (_APP0, _APP1, _APP14) or (marker == _APP2 and body.startswith(b"ICC_PROFILE\0") and profile <= MAX_PROFILE)
        if wanted or not (0xE0 <= marker <= 0xEF or marker == _COMMENT):
            kept.append(segment)
    if not frame:
        raise Flaw("it has no frame header")
    if sum(exif) > MAX_EXIF:
        raise Flaw(f"it has {sum(exif)} bytes of Exif in {len(exif)} segments, expected at most {MAX_EXIF}")
    return frame, b"".join(kept)


def _loaded(data: bytes, head: bytes, size: tuple[int, int], lacking: str) -> Image.Image:
    if lacking:
        raise Flaw(lacking)
    image = opened("JPEG", head)
    bands = len(image.getbands())
    pixels = jpeg.strictly(data, _BANDS.get(bands, "CMYK")) if jpeg.is_there() else None
    if pixels is not None and pixels.shape[1::-1] != size:
        raise Flaw(f"it states {size[1]}x{size[0]} pixels in one place and {pixels.shape[0]}x{pixels.shape[1]} in another")
    if pixels is None or bands not in _BANDS:
        # Adobe turned the values of CMYK around, of which Pillow knows.
        del pixels
        return loaded("JPEG", b"".join((head, data[jpeg_scans.end_of_head(data) :])), size)
    decoded = Image.fromarray(np.squeeze(pixels, 2) if bands == 1 else pixels)
    decoded.info.update(image.info)
    return decoded
