"""Small files that ask for much: refused with the reason before anything is allocated, in moments. And what a file at the bound costs."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
import zlib

import numpy as np
import pytest
from PIL import Image

from tests.memory import peak_memory
from tests.photos import encoded, picture
from tests.preprocess.sound import chunked_png
from vlmkit.preprocess import ImageError, open_image
from vlmkit.preprocess.images import decode, image_size

SECONDS, BYTES = 2.0, 300e6


def tiff(width: int, height: int, strips: int = 1, bits: int = 8, kind: int = 1, body: bytes = b"") -> bytes:
    """One grey sample a pixel, all strips at the same bytes."""
    head = struct.pack("<2sHI", b"II", 42, 8)
    rows = -(-height // strips)
    count = 10
    table = 8 + 2 + 12 * count + 4
    wide = strips > 1
    place = table + (8 * strips if wide else 0)
    fields = [
        (256, 4, 1, width),
        (257, 4, 1, height),
        (258, 3, 1, bits),
        (259, 3, 1, 1),
        (262, 3, 1, 1),
        (273, 4, strips, table if wide else place),
    ]
    fields += [(277, 3, 1, 1), (278, 4, 1, rows), (279, 4, strips, table + 4 * strips if wide else len(body)), (339, 3, 1, kind)]
    data = head + struct.pack("<H", count) + b"".join(struct.pack("<HHII", *field) for field in fields) + bytes(4)
    if wide:
        data += struct.pack("<I", place) * strips + struct.pack("<I", len(body)) * strips
    return data + body


def wide_png(width: int, height: int, depth: int = 1) -> bytes:
    row = 1 + (width * depth + 7) // 8
    packer = zlib.compressobj(9)
    packed = b"".join(packer.compress(bytes(row)) for _ in range(height)) + packer.flush()
    return chunked_png(((b"IHDR", struct.pack(">IIBBBBB", width, height, depth, 0, 0, 0, 0)), (b"IDAT", packed), (b"IEND", b"")))


def run_lengths(width: int, height: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, 0, 0, 0, 0, 0)
    body = header + bytes(range(256)) * 4 + b"\1\7\0\0" * 10
    return b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 14 + 40 + 1024) + body


def gif(width: int, height: int, frames: int) -> bytes:
    data = encoded(Image.new("P", (8, 8)), "GIF")
    start = data.index(b",")
    head = b"GIF89a" + struct.pack("<HH", width, height) + data[10:start]
    frame = b"!\xf9\4\x08\0\0\0\0" + b"," + struct.pack("<HHHH", 0, 0, width, height) + data[start + 9 : -1]
    return head + frame * frames + b";"


def with_segments(body: bytes, marker: int, count: int) -> bytes:
    data = encoded(picture("coffee", (16, 24)))
    return data[:2] + (bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body) * count + data[2:]


PICTURE = encoded(picture("coffee", (16, 24)), "PNG")
BOMBS = {
    "a PNG 90 million wide": (lambda: wide_png(90_000_000, 1), "at most 65535 a side"),
    "a PNG a million high": (lambda: wide_png(1, 1_000_000), "at most 65535 a side"),
    "a TIFF of 150 million floats": (lambda: tiff(1, 150_000_000, bits=32, kind=3), "at most 65535 a side"),
    "a TIFF of 150 million numbers": (lambda: tiff(1, 150_000_000, bits=16), "at most 65535 a side"),
    "a square TIFF of floats": (lambda: tiff(12_000, 12_000, bits=32, kind=3), "of this kind of TIFF"),
    "BMP in run lengths": (lambda: run_lengths(159_000_000, 1), "at most 65535 a side"),
    "a square BMP in run lengths": (lambda: run_lengths(12_600, 12_600), "of this kind of BMP"),
    "a TIFF of 4 million strips": (lambda: tiff(1, 4_000_000, strips=4_000_000, body=b"\0"), "expected at most"),
    "a square TIFF of too many strips": (lambda: tiff(60, 60_000, strips=4_000_000, body=bytes(60)), "expected at most"),
    "an animated GIF": (lambda: gif(12_000, 12_000, 50), "of this kind of GIF"),
    "Exif again and again": (lambda: with_segments(b"Exif\0\0" + bytes(60_000), 0xE1, 150), "bytes of Exif in 150 segments"),
    "tiny Exif": (lambda: with_segments(b"Exif\0\0", 0xE1, 1_000_000), "more than 10000 segments"),
    "tiny XMP": (lambda: with_segments(b"x", 0xE1, 1_600_000), "more than 10000 segments"),
    "tiny comments": (lambda: with_segments(b"", 0xFE, 2_000_000), "more than 10000 segments"),
    "PNG in tiny chunks": (lambda: PICTURE[:33] + b"\0\0\0\0tEXt\0\0\0\0" * 2_000_000 + PICTURE[33:], "more than 100000 chunks"),
    "GIF in tiny comments": (lambda: b"GIF89a\1\0\1\0\0\0\0!\xfe" + b"\1x" * 10_000_000 + b"\0;", "more than 100000 blocks"),
    "PPM behind a long comment": (lambda: b"P6 #" + b"x" * 40_000_000 + b"\n1 1 255\n123", "header is not one of 65536 bytes"),
    "a PPM in written numbers": (lambda: b"P2 9000 9000 255 " + b"1 " * 100, "of this kind of PPM"),
    "JPEG 2000 in tiny tiles": (
        lambda: b"\xff\x4f\xff\x51\0\x29\0\0" + struct.pack(">8IH", 4000, 4000, 0, 0, 1, 1, 0, 0, 1) + b"\7\1\1",
        "tiles, expected",
    ),
    "a WebP canvas": (
        lambda: b"RIFF" + struct.pack("<I", 22) + b"WEBPVP8X" + struct.pack("<I", 10) + b"\0\0\0\0" + b"\xff\x3f\0" * 2,
        "expected at most 160000000",
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused_at_once(name):
    make, reason = BOMBS[name]
    data = make()
    assert len(data) < 64e6
    for read in (open_image, decode, image_size):
        start = time.process_time()
        with peak_memory() as peak, pytest.raises(ImageError, match=reason):
            read(data)
        assert time.process_time() - start < SECONDS
        assert peak() < BYTES


def test_a_thin_picture_is_no_bomb():
    assert open_image(wide_png(60_000, 1)).size == (60_000, 1)
    assert open_image(tiff(1, 60_000, bits=32, kind=3, body=bytes(240_000))).size == (1, 60_000)
    assert open_image(tiff(1, 60_000, strips=60_000, body=b"\0")).size == (1, 60_000)


def test_the_bound_of_a_kind_grows_with_max_pixels():
    data = tiff(7000, 7000, bits=32, kind=3)
    with pytest.raises(ImageError, match="at most 40000000 of this kind of TIFF"):
        open_image(data)
    with pytest.raises(ImageError, match="cannot be read"):
        open_image(data, max_pixels=400_000_000)


COST = """
import sys, time
from pathlib import Path
from vlmkit.preprocess.images import decode, open_image
def status(name):
    return int(Path("/proc/self/status").read_text().split(name)[1].split()[0]) * 1024
data = Path(sys.argv[2]).read_bytes()
before, start = status("VmRSS:"), time.process_time()
picture = (decode if sys.argv[1] == "decode" else open_image)(data)
print(time.process_time() - start, status("VmHWM:") - before)
"""


def smooth(width: int, height: int) -> Image.Image:
    tile = np.asarray(picture("china"))
    rows, columns = -(-height // tile.shape[0]), -(-width // tile.shape[1])
    return Image.fromarray(np.tile(tile, (rows, columns, 1))[:height, :width])


LARGEST = {
    "JPEG": lambda: encoded(smooth(14_000, 10_800), quality=85),
    "JPEG progressive": lambda: encoded(smooth(10_500, 10_500), quality=75, progressive=True),
    "PNG": lambda: encoded(smooth(10_300, 10_300), "PNG", compress_level=1),
    "PNG alpha": lambda: encoded(smooth(8_900, 8_900).convert("RGBA"), "PNG", compress_level=1),
    "WEBP": lambda: encoded(smooth(6_300, 6_300), "WEBP", quality=80, method=0),
    "GIF": lambda: encoded(smooth(6_300, 6_300).quantize(64), "GIF"),
    "TIFF lzw": lambda: encoded(smooth(4_600, 4_600), "TIFF", compression="tiff_lzw"),
    "TIFF deflate": lambda: encoded(smooth(300, 10_300).resize((10_300, 10_300), 0), "TIFF", compression="tiff_adobe_deflate"),
    "TIFF float": lambda: encoded(Image.fromarray(np.linspace(0, 1, 6_300 * 6_300, dtype=np.float32).reshape(6_300, -1)), "TIFF"),
    "TIFF fax": lambda: encoded(smooth(6_300, 6_300).convert("1"), "TIFF", compression="group4"),
    "AVIF": lambda: encoded(smooth(5_600, 5_600), "AVIF", quality=60, speed=10),
    "JPEG 2000": lambda: encoded(smooth(3_990, 3_990), "JPEG2000", quality_mode="rates", quality_layers=[6]),
    "PPM": lambda: encoded(smooth(4_000, 5_000), "PPM"),
}


@pytest.mark.slow
@pytest.mark.parametrize("reader", ["open_image", "decode"])
@pytest.mark.parametrize("name", LARGEST)
def test_the_largest_of_a_kind_opens_in_time_and_memory(name, reader, tmp_path):
    (tmp_path / "large").write_bytes(LARGEST[name]())
    done = subprocess.run([sys.executable, "-c", COST, reader, tmp_path / "large"], check=True, capture_output=True, text=True)
    seconds, grown = map(float, done.stdout.split())
    print(f"{name:20} {reader:10} {(tmp_path / 'large').stat().st_size / 1e6:6.1f} MB {seconds:5.2f} s {grown / 2**30:5.2f} GiB")
    assert seconds < SECONDS
    assert grown < 1 << 30
