"""The fast path: ordinary JPEGs decoded straight into an array, the same pixels as Pillow's.

Nothing is decided here that could differ: whatever is not an 8-bit baseline or progressive JPEG in grey, YCbCr or RGB,
complete, without a colour profile other than sRGB and with a plain EXIF block, is left to the careful path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmkit.preprocess.colour import srgb_transform

try:
    import simplejpeg
except ImportError:  # no wheel for this platform: the careful path reads everything, more slowly
    simplejpeg = None

MAX_SCANS = 50
"""Bound on the passes over a progressive JPEG, each of which walks the whole picture; an ordinary one has about 10."""

_BASELINE, _EXTENDED, _PROGRESSIVE, _SOS, _EOI, _APP1, _APP2 = 0xC0, 0xC1, 0xC2, 0xDA, 0xD9, 0xE1, 0xE2
_PLAIN = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)))
_NEXT_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")


@dataclass(frozen=True)
class Header:
    """What stands before the first scan of a JPEG that the fast path takes."""

    height: int
    width: int
    orientation: int
    """As EXIF numbers it, 1 to 8; 0 where there is none."""
    one_scan: bool


def decode(data: bytes, max_pixels: int) -> NDArray[np.uint8] | None:
    """(H, W, 3), upright; None for what the careful path must see, be it only to say what is wrong with it."""
    if simplejpeg is None:
        return None
    header = read_header(data)
    if header is None or header.height * header.width > max_pixels:
        return None
    if not header.one_scan and count_scans(data) > MAX_SCANS:
        return None
    try:
        # strict: a warning of the decoder, such as an early end that it fills with grey, is an error.
        pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError:
        return None
    if pixels.shape != (header.height, header.width, 3):
        return None
    return _upright(pixels, header.orientation)


def read_header(data: bytes) -> Header | None:
    """None where the file is not a plain JPEG."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    at, marker, frame, exif, xmp, progressive = 2, 0, b"", b"", b"", False
    profile: list[bytes] = []
    while True:
        if at + 4 > len(data) or data[at] != 0xFF:
            return None
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        body = data[at + 4 : at + 2 + length]
        if len(body) != length - 2:
            return None
        if marker == _SOS:
            break
        if marker in (_BASELINE, _EXTENDED, _PROGRESSIVE):
            if frame or len(body) < 6:
                return None
            frame, progressive = body, marker == _PROGRESSIVE
        elif marker not in _PLAIN:
            return None
        elif marker == _APP1 and body.startswith(b"Exif\0\0"):
            if exif:
                return None
            exif = body
        elif marker == _APP1:
            xmp += body
        elif marker == _APP2 and body.startswith(b"ICC_PROFILE\0"):
            profile.append(body)
        at += 2 + length
    if not frame or frame[0] != 8 or frame[5] not in (1, 3):
        return None
    if profile and (frame[5] != 3 or srgb_transform(b"".join(chunk[14:] for chunk in sorted(profile)), "RGB") is not None):
        return None
    orientation = _orientation(exif[6:])
    if orientation is None or (orientation == 0 and b"tiff:Orientation" in xmp):
        return None
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    return Header(height, width, orientation, one_scan=not progressive and body[:1] == frame[5:6])


def count_scans(data: bytes) -> int:
    """Scans of a JPEG, found by walking its markers as a decoder does; counting stops beyond MAX_SCANS."""
    scans, at = 0, 2
    while scans <= MAX_SCANS and (found := _NEXT_MARKER.search(data, at)):
        marker, at = data[found.start() + 1], found.end()
        if marker == _EOI:
            break
        scans += marker == _SOS
        at += int.from_bytes(data[at : at + 2], "big")
    return scans


def _orientation(exif: bytes) -> int | None:
    """1 to 8; 0 where there is none; None where the block is unusual."""
    if not exif:
        return 0
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return None

    def number(at: int, length: int) -> int:
        return int.from_bytes(exif[at : at + length], "little" if exif.startswith(b"I") else "big")

    start = number(4, 4)
    count = number(start, 2)
    if start < 8 or start + 2 + 12 * count > len(exif):
        return None
    found = [entry for entry in range(start + 2, start + 2 + 12 * count, 12) if number(entry, 2) == 0x0112]
    if not found:
        return 0
    if len(found) > 1 or number(found[0] + 2, 2) != 3 or number(found[0] + 4, 4) != 1:
        return None
    value = number(found[0] + 8, 2)
    return value if 1 <= value <= 8 else None


def _upright(pixels: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    if orientation < 2:
        return pixels
    # One item of three bytes a pixel: numpy copies those two to five times faster than a last axis of three.
    items = pixels.view("V3")[:, :, 0]
    if orientation > 4:
        items = items.T
    rows, columns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 5: (1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}[orientation]
    upright = np.ascontiguousarray(items[::rows, ::columns])
    return upright.view(np.uint8).reshape(*upright.shape, 3)
