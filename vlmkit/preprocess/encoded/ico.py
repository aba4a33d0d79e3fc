"""ICO: the largest picture of an icon, a PNG or the inside of a BMP, is handed on alone."""

from __future__ import annotations

import functools
import math
import struct

from vlmkit.preprocess.bounds import LAYERED
from vlmkit.preprocess.encoded import png
from vlmkit.preprocess.encoded.bmp import measures
from vlmkit.preprocess.encoded.surveys import Survey, number
from vlmkit.preprocess.encoded.whole import loaded, opened
from vlmkit.preprocess.image_errors import Flaw

_MAGIC = b"\0\0\1\0"
_BITFIELDS = 3


def accepts(data: bytes) -> bool:
    return data.startswith(_MAGIC)


def survey(data: bytes) -> Survey:
    count = number(data, 4, 2, "little")
    if not count:
        raise Flaw("it has no picture")
    number(data, 6 + 16 * (count - 1), 16)
    # As Pillow chooses: of the largest the one with the fewest colours, the first of those.
    chosen = min((-_area(entry), _depth(entry), place) for place in range(count) if (entry := data[6 + 16 * place : 22 + 16 * place]))[2]
    entry = data[6 + 16 * chosen : 22 + 16 * chosen]
    length, start = struct.unpack_from("<II", entry, 8)
    if start + length > len(data):
        raise Flaw(f"it ends at byte {len(data)} of {start + length}")
    body = data[start : start + length]
    if png.accepts(body):
        return png.survey(body)
    width, height, compression = measures(body, 0)
    if compression not in (0, _BITFIELDS) or height % 2:
        raise Flaw("its picture is neither a PNG nor the inside of a BMP")
    # Its height counts the mask below the picture.
    if (width, height // 2) != (entry[0] or 256, entry[1] or 256):
        raise Flaw(f"it states {entry[1] or 256}x{entry[0] or 256} pixels in one place and {height // 2}x{width} in another")
    lean = _MAGIC + b"\1\0" + entry[:8] + struct.pack("<II", length, 22) + body
    return Survey(
        format="ICO",
        height=height // 2,
        width=width,
        weight=LAYERED,
        header=functools.partial(opened, "ICO", lean),
        load=functools.partial(loaded, "ICO", lean, (width, height // 2)),
    )


def _area(entry: bytes) -> int:
    return (entry[0] or 256) * (entry[1] or 256)


def _depth(entry: bytes) -> int:
    return int.from_bytes(entry[6:8], "little") or (entry[2] != 0 and math.ceil(math.log2(entry[2]))) or 256
