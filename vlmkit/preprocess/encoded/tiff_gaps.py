"""Strips and tiles of TIFFs in those kinds of compression whose gaps libtiff fills without a word: JPEG and fax."""

from __future__ import annotations

import io
import struct

import numpy as np
from PIL import Image

from vlmkit.preprocess import jpeg, jpeg_scans
from vlmkit.preprocess.encoded.tiff_directory import (
    COMPRESSION,
    FAX,
    FILL_ORDER,
    GROUP3,
    GROUP3_OPTIONS,
    GROUP4,
    HEIGHT,
    JPEG,
    JPEG_TABLES,
    OLD_JPEG,
    RAW,
    Directory,
)
from vlmkit.preprocess.encoded.tiff_pieces import Pieces
from vlmkit.preprocess.encoded.whole import opened
from vlmkit.preprocess.image_errors import Flaw

_FAX = {FAX: "tiff_ccitt", GROUP3: "group3", GROUP4: "group4"}
_BLACK = bytes((0b00110101, 0b00110011, 0b00110011, 0b00110011))
"""No white and five black, or five black at once: whichever is due."""
_BANDS = {1: "GRAY", 3: "RGB", 4: "CMYK"}


def check(directory: Directory, pieces: Pieces) -> None:
    """Raises Flaw where a piece has no data for some of its pixels."""
    compression = directory.one(COMPRESSION, RAW)
    if compression == JPEG:
        _check_jpeg(directory, pieces)
    elif compression in _FAX:
        _check_fax(directory, pieces)
    elif compression == OLD_JPEG:
        raise Flaw("it holds a JPEG in the form of TIFF 6.0, which no two programs read alike; save it again")


def _check_jpeg(directory: Directory, pieces: Pieces) -> None:
    """Each piece with the tables of all is a JPEG."""
    if not jpeg.is_there():
        return
    tables = b""
    if JPEG_TABLES in directory.entries:
        _, count, at, _ = directory.entries[JPEG_TABLES]
        tables = directory.data[at : at + count].removeprefix(b"\xff\xd8").removesuffix(b"\xff\xd9")
    for place, (offset, length) in enumerate(zip(pieces.offsets, pieces.lengths, strict=True)):
        piece = directory.data[offset : offset + length]
        whole = b"\xff\xd8" + tables + piece.removeprefix(b"\xff\xd8")
        frame = next((segment for marker, segment in jpeg_scans.segments(whole) if marker in (0xC0, 0xC1, 0xC2)), b"")
        if len(frame) < 10 or int.from_bytes(frame[7:9], "big") < pieces.width:
            raise Flaw("a strip or tile of it is narrower than the picture")
        if lacking := jpeg_scans.scans_of(whole).lacking:
            raise Flaw(lacking)
        rows = jpeg.strictly(whole, _BANDS.get(frame[9], "GRAY")).shape[0]
        if rows < (_last_rows(directory, pieces) if place % pieces.down == pieces.down - 1 else pieces.height):
            raise Flaw("a strip or tile of it has too few rows")


def _check_fax(directory: Directory, pieces: Pieces) -> None:
    """Rows that no code gives keep what was decoded before them, and the rest of a row is white. So each strip is decoded behind a black
    one and then behind a white one with codes of black after its own: what was given comes out the same."""
    if directory.one(COMPRESSION, RAW) == GROUP3:
        _check_lines(directory, pieces)
    width, height = pieces.width, pieces.height
    total = (2 * len(pieces.offsets) - 1) * height + _last_rows(directory, pieces)
    seen = [np.asarray(_loaded(_paired(directory, pieces, colour, total), (width, total))) for colour in (0, 1)]
    for place in range(len(pieces.offsets)):
        rows = slice((2 * place + 1) * height, (2 * place + 2) * height)
        if (seen[0][rows] != seen[1][rows]).any():
            raise Flaw("its data ends before its last row")


def _check_lines(directory: Directory, pieces: Pieces) -> None:
    """Group 3 fills missing rows with white; each row has a mark before it, of 11 zeros and a one."""
    reverse = directory.one(FILL_ORDER, 1) == 2
    for place, (offset, length) in enumerate(zip(pieces.offsets, pieces.lengths, strict=True)):
        bits = np.unpackbits(np.frombuffer(directory.data, np.uint8, length, offset), bitorder="little" if reverse else "big")
        ones = np.flatnonzero(bits)
        marks = int((np.diff(ones, prepend=-1) > 11).sum())
        rows = _last_rows(directory, pieces) if place % pieces.down == pieces.down - 1 else pieces.height
        if marks < rows:
            raise Flaw(f"a strip of it has {marks} of {rows} rows")


def _last_rows(directory: Directory, pieces: Pieces) -> int:
    """Of the last strip; tiles are all alike."""
    return pieces.height if pieces.tiled else directory.one(HEIGHT, 0) - (pieces.down - 1) * pieces.height


def _loaded(data: bytes, size: tuple[int, int]) -> Image.Image:
    image = opened("TIFF", data)
    assert image.size == size
    image.load()
    return image


def _paired(directory: Directory, pieces: Pieces, colour: int, rows: int) -> bytes:
    """A TIFF of all pieces as strips, a strip of one colour before each."""
    reverse = directory.one(FILL_ORDER, 1) == 2
    compression, options = directory.one(COMPRESSION, RAW), directory.one(GROUP3_OPTIONS, 0)
    blank = _blank(pieces.width, pieces.height, colour, _FAX[compression], options)
    after = _BLACK if colour else b""
    if reverse:
        blank, after = (bytes(int(f"{byte:08b}"[::-1], 2) for byte in codes) for codes in (blank, after))
    body = bytearray(8) + blank
    offsets, lengths = [], []
    for offset, length in zip(pieces.offsets, pieces.lengths, strict=True):
        offsets += [8, len(body)]
        lengths += [len(blank), length + len(after)]
        body += directory.data[offset : offset + length] + after
    body += bytes(len(body) % 2)
    count, tables = len(offsets), len(body)
    body += struct.pack(f"<{2 * count}I", *offsets, *lengths)
    first = (tables, tables + 4 * count) if count > 1 else (offsets[0], lengths[0])
    entries = (
        *(
            (256, 4, 1, pieces.width),
            (257, 4, 1, rows),
            (258, 3, 1, 1),
            (259, 3, 1, compression),
            (262, 3, 1, 0),
            (266, 3, 1, 2 if reverse else 1),
        ),
        *((273, 4, count, first[0]), (277, 3, 1, 1), (278, 4, 1, pieces.height), (279, 4, count, first[1]), (292, 4, 1, options)),
    )
    start = len(body)
    body += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    body[:8] = b"II*\0" + struct.pack("<I", start)
    return bytes(body)


def _blank(width: int, height: int, colour: int, compression: str, options: int) -> bytes:
    """A strip of one colour."""
    file = io.BytesIO()
    Image.new("1", (width, height), colour).save(file, "TIFF", compression=compression, tiffinfo={278: height, 292: options})
    data = file.getvalue()
    start = struct.unpack_from("<I", data, 4)[0]
    fields = {}
    for at in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        fields[struct.unpack_from("<H", data, at)[0]] = struct.unpack_from("<I", data, at + 8)[0]
    return data[fields[273] : fields[273] + fields[279]]
