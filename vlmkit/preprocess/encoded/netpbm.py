"""PBM, PGM and PPM (Netpbm): bitmaps, grey and colour, as bytes or as written numbers.

Bytes with any greatest value are rescaled here, a block of rows at a time: Pillow reads values up to any but 255 one by one. So it
does with written numbers, which are therefore bounded more closely.
"""

from __future__ import annotations

import functools
import re

import numpy as np
from PIL import Image

from vlmkit.preprocess.bounds import PLAIN, WIDE
from vlmkit.preprocess.encoded.surveys import Survey
from vlmkit.preprocess.encoded.whole import loaded, opened
from vlmkit.preprocess.image_errors import Flaw

_GAP = rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])+"
_BITMAP = re.compile(rb"P([14])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})[ \t\r\n\v\f]")
_SAMPLES = re.compile(rb"P([2356])" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,9})" + _GAP + rb"(\d{1,5})[ \t\r\n\v\f]")
_LONGEST_HEADER = 1 << 16
_WRITTEN = 80.0
_BLOCK = 1 << 20


def accepts(data: bytes) -> bool:
    return data[:1] == b"P" and data[1:2] in (b"1", b"2", b"3", b"4", b"5", b"6") and data[2:3] in b" \t\r\n\v\f#" and len(data) > 2


def survey(data: bytes) -> Survey:
    head = data[:_LONGEST_HEADER]
    found = _BITMAP.match(head) or _SAMPLES.match(head)
    if found is None:
        raise Flaw(f"its header is not one of {_LONGEST_HEADER} bytes at most")
    kind, width, height = (int(text) for text in found.groups()[:3])
    most = int(found[4]) if found.re is _SAMPLES else 1
    if not 0 < most < 65536:
        raise Flaw(f"its greatest value is {most}, expected 1 to 65535")
    bands = 3 if kind in (3, 6) else 1
    measured = kind in (5, 6)
    if measured and found.end() + width * height * bands * (1 if most < 256 else 2) > len(data):
        raise Flaw(f"it has {len(data) - found.end()} bytes of pixels, which are not enough for {height}x{width}")
    return Survey(
        format="PPM",
        height=height,
        width=width,
        weight=_WRITTEN if kind < 4 else PLAIN if most in (1, 255) else WIDE,
        header=functools.partial(opened, "PPM", data),
        load=functools.partial(_scaled, data, found.end(), (height, width, bands), most)
        if measured and most != 255
        else functools.partial(loaded, "PPM", data, (width, height)),
        coded=len(data) if kind < 4 else 0,
        most_coded=1 << 23,
    )


def _scaled(data: bytes, start: int, shape: tuple[int, int, int], most: int) -> Image.Image:
    """Grey of more than 8 bits as 16 bits, all else as 8."""
    height, width, bands = shape
    goal = 65535 if most > 255 and bands == 1 else 255
    values = np.frombuffer(data, np.uint8 if most < 256 else ">u2", height * width * bands, start).reshape(height, width * bands)
    scaled = np.empty(values.shape, np.uint16 if goal > 255 else np.uint8)
    # Halves to the even neighbour, as Python rounds and Pillow with it.
    table = np.minimum(np.rint(np.arange(65536 if most > 255 else 256) / most * goal), goal).astype(scaled.dtype)
    rows = max(1, _BLOCK // (width * bands))
    for top in range(0, height, rows):
        scaled[top : top + rows] = table[values[top : top + rows]]
    return Image.fromarray(scaled if bands == 1 else scaled.reshape(height, width, 3))
