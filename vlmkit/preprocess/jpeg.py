"""The fast path: ordinary JPEGs decoded straight into an array, the same pixels as Pillow's.

Nothing is decided here that could differ: whatever is not an 8-bit baseline or progressive JPEG in grey, YCbCr or RGB,
complete, without a colour profile other than sRGB and with a plain EXIF block, is left to the careful path.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vlmkit.preprocess.bounds import MAX_PIXELS
from vlmkit.preprocess.colour import srgb_transform
from vlmkit.preprocess.image_errors import Flaw
from vlmkit.preprocess.jpeg_scans import MAX_SCANS, MAX_SEGMENTS, scans_of, weight_of

try:
    import simplejpeg
except ImportError:  # no wheel for this platform: the careful path reads everything, more slowly
    simplejpeg = None

_BASELINE, _EXTENDED, _PROGRESSIVE, _SOS, _APP1, _APP2 = 0xC0, 0xC1, 0xC2, 0xDA, 0xE1, 0xE2
_PLAIN = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)))
_PADDING = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")


@dataclass(frozen=True)
class Header:
    """What stands before the first scan of a JPEG that the fast path takes."""

    height: int
    width: int
    orientation: int
    """As EXIF numbers it, 1 to 8; 0 where there is none."""
    one_scan: bool
    frame: bytes


def decode(data: bytes, max_pixels: int) -> NDArray[np.uint8] | None:
    """(H, W, 3), upright; None for what the careful path must see, be it only to say what is wrong with it."""
    if simplejpeg is None:
        return None
    header = read_header(data)
    if header is None:
        return None
    scans = None if header.one_scan else scans_of(data)
    if scans is not None and (scans.lacking or scans.count > MAX_SCANS):
        return None
    weight = weight_of(header.frame, 1 if scans is None else max(2, scans.count))
    pixels = header.height * header.width
    if pixels > max_pixels or pixels * weight > max(MAX_PIXELS, max_pixels):
        return None
    try:
        array = strictly(data, "RGB")
    except Flaw:
        return None
    if array.shape != (header.height, header.width, 3):
        return None
    return _upright(array, header.orientation)


def read_header(data: bytes) -> Header | None:
    """None where the file is not a plain JPEG."""
    if not data.startswith(b"\xff\xd8\xff"):
        return None
    at, marker, frame, exif, progressive = 2, 0, b"", b"", False
    profile: list[bytes] = []
    turned = False
    for _ in range(MAX_SEGMENTS):
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
            turned = turned or b"tiff:Orientation" in body
        elif marker == _APP2 and body.startswith(b"ICC_PROFILE\0"):
            profile.append(body)
        at += 2 + length
    if marker != _SOS or not frame or frame[0] != 8 or frame[5] not in (1, 3):
        return None
    if profile and (frame[5] != 3 or srgb_transform(b"".join(chunk[14:] for chunk in sorted(profile)), "RGB") is not None):
        return None
    orientation = _orientation(exif[6:])
    if orientation is None or (orientation == 0 and turned):
        return None
    height, width = int.from_bytes(frame[1:3], "big"), int.from_bytes(frame[3:5], "big")
    return Header(height, width, orientation, not progressive and body[:1] == frame[5:6], frame)


def is_there() -> bool:
    """Whether there is a decoder that says what it filled in."""
    return simplejpeg is not None


def strictly(data: bytes, colours: str) -> NDArray[np.uint8]:
    """(H, W, bands) of a picture of which nothing was missing or broken; colours: "RGB", "GRAY" or "CMYK". Raises Flaw."""
    for attempt in (0, 1):
        try:
            # strict: a warning of the decoder, such as an early end that it fills with grey, is an error.
            pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(data, colours, strict=True)
            return pixels
        except ValueError as error:
            whole = _without_padding(data, str(error)) if attempt == 0 else None
            if whole is None:
                problem = re.sub(r"0x[0-9a-f]+", "of the file", str(error))
                raise Flaw(f"its decoder says: {problem}") from None
            data = whole
    raise AssertionError


def _without_padding(data: bytes, problem: str) -> bytes | None:
    """The file without the zeros that some cameras put before the end mark, if that is all that its decoder said."""
    found = _PADDING.fullmatch(problem)
    if found is None:
        return None
    end = scans_of(data).end
    start = end - int(found[1])
    return None if data[start:end].strip(b"\0") else data[:start] + data[end:]


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
