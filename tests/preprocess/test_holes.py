"""Every pixel of a picture was in its file: what lacks some is an ImageError, and never a picture with a grey, black or empty rest."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.photos import difference, encoded, picture
from tests.preprocess.sound import SIZE, chunked_png, cut, interlaced_png, pictures, runs
from vlmkit.preprocess import ImageError, open_image
from vlmkit.preprocess.images import decode, image_size

NAMES = tuple(pictures())


def reference(data: bytes) -> Image.Image:
    """As Pillow has it, on white and upright."""
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
    if image.mode.startswith("I"):
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        return Image.fromarray(np.rint(np.asarray(image) * 255).astype(np.uint8)).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    layers = image.convert("RGBA")
    white = Image.new("RGBA", layers.size, "white")
    return Image.alpha_composite(white, layers).convert("RGB")


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_picture_is_pillows(name):
    """Measured: 0 of 255 for most, 1 where an opacity is applied."""
    data = pictures()[name]
    expected = reference(data)
    for read in (open_image, decode):
        assert difference(read(data), expected) <= 2
    found = image_size(data)
    assert (found.width, found.height) == expected.size


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_is_cut_is_refused_or_whole(name):
    """With lengths and an end mark as if that were all of it."""
    data = pictures()[name]
    whole = np.asarray(open_image(data))
    refused = 0
    for step in range(1, 60):
        try:
            pixels = np.asarray(open_image(cut(data, step / 60)))
        except ImageError:
            refused += 1
            continue
        assert difference(pixels, whole) == 0, step
    assert refused > 5


def with_value(data: bytes, tag: int, change) -> bytes:
    """A TIFF of ours (little endian) with the entry's count and first value, or offset, changed."""
    changed = bytearray(data)
    start = struct.unpack_from("<I", data, 4)[0]
    for at in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        if struct.unpack_from("<H", data, at)[0] == tag:
            kind, count, value = struct.unpack_from("<HII", data, at + 2)
            struct.pack_into("<HII", changed, at + 2, kind, *change(count, value))
    return bytes(changed)


BILEVEL = picture("page", (300, 400)).convert("L").point(lambda value: 255 * (value > 150)).convert("1")


@pytest.mark.parametrize(
    "compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma", "group3", "group4", "tiff_ccitt"]
)
@pytest.mark.parametrize("kept", [0.2, 0.5, 0.8, 0.95])
def test_a_strip_with_fewer_bytes(compression, kept):
    image = BILEVEL if compression in ("group3", "group4", "tiff_ccitt") else picture("coffee", (96, 128))
    data = encoded(image, "TIFF", compression=compression, tiffinfo={278: image.height})
    whole = open_image(data)
    damaged = with_value(data, 279, lambda count, value: (count, int(value * kept)))
    assert damaged != data
    try:
        assert difference(open_image(damaged), whole) == 0  # what it lost was an end mark
    except ImageError:
        return
    assert kept > 0.9


@pytest.mark.parametrize("kept", [1, 3, 7])
@pytest.mark.parametrize("compression", ["tiff_adobe_deflate", "tiff_lzw", "jpeg"])
def test_a_tiff_that_lists_some_of_its_strips(kept, compression):
    data = encoded(picture("coffee", (128, 96)), "TIFF", compression=compression, strip_size=96 * 3 * 16)
    fewer = data
    for tag in (273, 279):
        fewer = with_value(fewer, tag, lambda count, value: (kept, value))
    with pytest.raises(ImageError, match=f"it lists {kept} of its 8 strips|behind its end|is empty"):
        open_image(fewer)


def tiled(image: Image.Image, side: int, listed: int) -> bytes:
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    tiles = [pixels[y : y + side, x : x + side].tobytes() for y in range(0, height, side) for x in range(0, width, side)]
    body = b"II*\0" + bytes(4)
    offsets = []
    for tile in tiles:
        offsets.append(len(body))
        body += tile
    tables = len(body)
    body += struct.pack(f"<{2 * listed}I", *offsets[:listed], *map(len, tiles[:listed]))
    bits = len(body)
    body += struct.pack("<3H", 8, 8, 8)
    many = listed > 1
    entries = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 3, bits),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (277, 3, 1, 3),
        (322, 4, 1, side),
        (323, 4, 1, side),
    ]
    entries += [(324, 4, listed, tables if many else offsets[0]), (325, 4, listed, tables + 4 * listed if many else len(tiles[0]))]
    start = len(body)
    body += struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", *entry) for entry in entries) + bytes(4)
    return body[:4] + struct.pack("<I", start) + body[8:]


def test_a_tiff_that_lists_some_of_its_tiles():
    image = picture("coffee", (64, 64))
    assert difference(open_image(tiled(image, 32, 4)), image) == 0
    for listed in (1, 2, 3):
        with pytest.raises(ImageError, match=f"it lists {listed} of its 4 tiles"):
            open_image(tiled(image, 32, listed))


@pytest.mark.parametrize("rows", [0, 1, 20, 39])
@pytest.mark.parametrize("colour", [(90, 108, 44), (107, 91, 233), (0, 0, 0)])
def test_a_png_whose_stream_ends_early(rows, colour):
    """Also where the picture has the very colours by which an early end is seen."""
    height, width = SIZE
    line = b"\0" + bytes(colour) * width
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    for given in (rows, height):
        data = chunked_png(((b"IHDR", header), (b"IDAT", zlib.compress(line * given)), (b"IEND", b"")))
        if given == height:
            assert (np.asarray(open_image(data)) == colour).all()
        else:
            with pytest.raises(ImageError, match="cannot be read"):
                open_image(data)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (1, 9), (9, 1), (2, 2), (3, 3), (5, 4), (8, 8), (29, 37)])
def test_an_interlaced_png_of_any_size(size):
    height, width = size
    data = interlaced_png(width, height)
    assert difference(open_image(data), reference(data)) == 0
    rows = zlib.decompress(data[data.index(b"IDAT") + 4 : -16])
    header = data[16:29]
    for lost in (1, len(rows) // 2, len(rows) - 1):
        with pytest.raises(ImageError):
            open_image(chunked_png(((b"IHDR", header), (b"IDAT", zlib.compress(rows[: len(rows) - lost])), (b"IEND", b""))))


def test_a_changed_byte_of_a_png_is_seen():
    data = bytearray(pictures()["png"])
    at = data.index(b"IDAT") + 50
    data[at] ^= 1
    with pytest.raises(ImageError, match="is not what its checksum says"):
        open_image(bytes(data))


def test_a_progressive_jpeg_without_its_last_scans():
    data = encoded(picture("china", (200, 300)), progressive=True)
    starts = [at for at in range(len(data) - 1) if data[at : at + 2] == b"\xff\xda"]
    assert len(starts) == 10
    for start in starts[1:]:
        for read in (open_image, decode):
            with pytest.raises(ImageError, match="no scan for a part"):
                read(data[:start] + b"\xff\xd9")


def test_a_jpeg_of_three_scans_without_its_last():
    """Without interleaving: a scan a colour."""
    image = picture("coffee", (32, 32))
    data = encoded(image)
    scan = data.index(b"\xff\xda")
    alone = data[:scan] + b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + bytes(40) + b"\xff\xd9"
    for read in (open_image, decode):
        with pytest.raises(ImageError):
            read(alone)


def test_zeros_before_the_end_mark_are_no_damage():
    """Some cameras fill up a block."""
    data = encoded(picture())
    for count in (1, 2, 100):
        padded = data[:-2] + bytes(count) + data[-2:]
        assert difference(open_image(padded), open_image(data)) == difference(decode(padded), decode(data)) == 0
    with pytest.raises(ImageError, match="extraneous bytes"):
        open_image(data[:-2] + b"noise" * 4 + data[-2:])


def test_run_lengths_that_leave_pixels_out():
    data = runs(picture("coffee", SIZE))
    end_of_line = data.index(b"\0\0", struct.unpack_from("<I", data, 10)[0])
    assert difference(open_image(data), reference(data)) == 0
    start = struct.unpack_from("<I", data, 10)[0]
    for early in (b"\0\1", b"\0\0", b"\0\2\5\0"):
        with pytest.raises(ImageError, match="before its last pixel"):
            open_image(data[:start] + b"\1\7" + early + data[start:])
    assert end_of_line > start


CHATTER = """
import sys
from vlmkit.preprocess import ImageError, open_image
for file in sys.argv[1:]:
    try:
        open_image(file)
    except ImageError:
        pass
"""


def test_libtiff_says_nothing(tmp_path):
    data = encoded(BILEVEL, "TIFF", compression="group3", tiffinfo={278: BILEVEL.height})
    (tmp_path / "fax.tif").write_bytes(with_value(data, 279, lambda count, value: (count, value // 2)))
    lzw = encoded(picture("coffee", (96, 128)), "TIFF", compression="tiff_lzw", tiffinfo={278: 96})
    (tmp_path / "lzw.tif").write_bytes(with_value(lzw, 279, lambda count, value: (count, value // 2)))
    done = subprocess.run([sys.executable, "-c", CHATTER, *tmp_path.glob("*.tif")], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"", b"")


@pytest.mark.parametrize("length", [100_000, 3_000_000])
def test_a_png_with_long_texts_and_a_large_profile(length):
    from tests.preprocess.test_images import ADOBE_RGB

    image = picture("coffee", (20, 30))
    parts = []
    data = encoded(image, "PNG")
    at = 8
    while at < len(data):
        size, name = struct.unpack_from(">I", data, at)[0], data[at + 4 : at + 8]
        parts.append((name, data[at + 8 : at + 8 + size]))
        at += 12 + size
    words = np.random.default_rng(0).integers(32, 127, length, dtype=np.uint8).tobytes()
    profile = struct.pack(">I", len(ADOBE_RGB) + length) + ADOBE_RGB[4:] + words
    for chunk in (
        (b"zTXt", b"note\0\0" + zlib.compress(words)),
        (b"tEXt", b"note\0" + words),
        (b"iTXt", b"note\0\1\0\0\0" + zlib.compress(words)),
    ):
        assert difference(open_image(chunked_png((parts[0], chunk, *parts[1:]))), image) == 0
    coloured = open_image(chunked_png((parts[0], (b"iCCP", b"wide\0\0" + zlib.compress(profile)), *parts[1:])))
    assert difference(coloured, open_image(encoded(image, "PNG", icc_profile=ADOBE_RGB))) == 0
    assert difference(coloured, image) > 10
