"""PNG (ISO 15948): chunks are walked and their checksums compared; the decoder gets those that make the picture.

Texts of any length, thumbnails, animations and times are left out: a limit that the decoder has for them costs no picture.
"""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Iterator

from PIL import Image

from vlmkit.preprocess.bounds import LAYERED, MAX_EXIF, MAX_PROFILE, MAX_TEXT, PLAIN, WIDE
from vlmkit.preprocess.encoded.surveys import Survey, number
from vlmkit.preprocess.encoded.whole import last_of_rows, loaded_to_the_end, opened
from vlmkit.preprocess.image_errors import Flaw

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_KEPT = (b"PLTE", b"tRNS")
MAX_CHUNKS = 100_000
_BANDS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
"""Samples a pixel by colour type."""
_TURNED = re.compile(rb'tiff:Orientation(="|>)([2-8])')


def accepts(data: bytes) -> bool:
    return data.startswith(_SIGNATURE)


def survey(data: bytes) -> Survey:
    chunks = _chunks(data)
    name, header = next(chunks, (b"", b""))
    if name != b"IHDR" or len(header) != 13:
        raise Flaw("it does not begin with a header of 13 bytes")
    width, height, depth, colours, interlaced = (*(number(header, at, 4) for at in (0, 4)), header[8], header[9], header[12])
    kept: list[tuple[bytes, bytes]] = []
    pixels: list[bytes] = []
    profile: bytes | None = None
    exif = turned = b""
    for name, body in chunks:
        if name == b"IDAT":
            pixels.append(body)
        elif name in _KEPT and not pixels:
            kept.append((name, body))
        elif name == b"eXIf":
            exif = body
        elif name == b"iCCP" and profile is None:
            profile = _profile(body)
        elif name in (b"iTXt", b"zTXt", b"tEXt") and (found := _orientation(name, body)) is not None:
            turned = found
    if len(exif) > MAX_EXIF:
        raise Flaw(f"it has {len(exif)} bytes of Exif, expected at most {MAX_EXIF}")
    if exif:
        kept.append((b"eXIf", exif))
    if turned:
        kept.append(_text(turned))
    parts = ((b"IHDR", header), *kept, (b"IDAT", b"".join(pixels)), (b"IEND", b""))
    lean = _SIGNATURE + b"".join(piece for name, body in parts for piece in _chunk(name, body))
    wide = _BANDS.get(colours, 4) * max(depth, 8) // 8
    layered = colours in (4, 6) or any(name == b"tRNS" for name, _ in kept)
    return Survey(
        format="PNG",
        height=height,
        width=width,
        # By bytes of a row, which have to be inflated and filtered, and by what becomes of them.
        weight=max(LAYERED if layered else PLAIN, WIDE * wide / 6 if depth == 16 else 0),
        header=functools.partial(_opened, lean, profile),
        load=functools.partial(_loaded, lean, profile, (width, height), bool(interlaced), depth == 16),
    )


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Name and body of each chunk up to the end mark. Raises Flaw where one is cut short or not what was written."""
    at, count = len(_SIGNATURE), 0
    while True:
        length, name = number(data, at, 4), data[at + 4 : at + 8]
        end = at + 8 + length
        count += 1
        if end + 4 > len(data):
            raise Flaw(f"it ends at byte {len(data)}, in a chunk {name!r} of {length} bytes")
        if count > MAX_CHUNKS:
            raise Flaw(f"it has more than {MAX_CHUNKS} chunks")
        body = data[at + 8 : end]
        # A capital letter first: no picture without it.
        if name[:1].isupper() and zlib.crc32(body, zlib.crc32(name)) != number(data, end, 4):
            raise Flaw(f"its chunk {name!r} is not what its checksum says")
        if name == b"IEND":
            return
        yield name, body
        at = end + 4


def _chunk(name: bytes, body: bytes) -> tuple[bytes, ...]:
    return len(body).to_bytes(4, "big"), name, body, zlib.crc32(body, zlib.crc32(name)).to_bytes(4, "big")


def _profile(body: bytes) -> bytes | None:
    """The colour profile; None where it is broken or larger than any."""
    _, end, rest = body.partition(b"\0")
    return _inflated(rest[1:], MAX_PROFILE) if end else None


def _inflated(packed: bytes, most: int) -> bytes | None:
    try:
        found = zlib.decompressobj().decompress(packed, most + 1)
    except zlib.error:
        return None
    return found if len(found) <= most else None


def _orientation(kind: bytes, body: bytes) -> bytes | None:
    """A text that says how the picture is turned, as it stands: Exif written as hexadecimal digits, or XMP."""
    keyword, _, rest = body.partition(b"\0")
    if keyword == b"Raw profile type exif" and kind in (b"tEXt", b"zTXt"):
        text = rest if kind == b"tEXt" else _inflated(rest[1:], 3 * MAX_EXIF)
        return b"E" + text if text and len(text) <= 3 * MAX_EXIF else None
    if keyword == b"XML:com.adobe.xmp" and kind == b"iTXt":
        packed, rest = rest[:1] == b"\1", rest[2:].partition(b"\0")[2].partition(b"\0")[2]
        text = _inflated(rest, MAX_TEXT) if packed else rest[:MAX_TEXT]
        found = _TURNED.search(text or b"")
        return b"X" + found[2] if found else None
    return None


def _text(turned: bytes) -> tuple[bytes, bytes]:
    if turned[:1] == b"E":
        return b"tEXt", b"Raw profile type exif\0" + turned[1:]
    return b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x tiff:Orientation="' + turned[1:] + b'"/>'


def _opened(lean: bytes, profile: bytes | None) -> Image.Image:
    image = opened("PNG", lean)
    if profile is not None:
        image.info["icc_profile"] = profile
    return image


def _loaded(lean: bytes, profile: bytes | None, size: tuple[int, int], interlaced: bool, wide: bool) -> Image.Image:
    image = loaded_to_the_end("PNG", lean, size, _last(*size, interlaced))
    if profile is not None:
        image.info["icc_profile"] = profile
    transparent = image.info.get("transparency")
    if wide and isinstance(transparent, tuple):
        # Pillow narrowed the samples and not the colour.
        image.info["transparency"] = tuple(value >> 8 for value in transparent)
    return image


def _last(width: int, height: int, interlaced: bool) -> tuple[int, int]:
    """(x, y) of the pixel that is written last: of the seventh pass all rows with an odd number, of the sixth all columns."""
    if not interlaced or height > 1:
        return last_of_rows(width, height, interlaced)
    return (width // 2 * 2 - 1 if width > 1 else 0), 0
