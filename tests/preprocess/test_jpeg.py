"""The fast path gives Pillow's pixels, or leaves the file to the careful path."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from tests.photos import NAMES, difference, encoded, picture
from vlmkit.preprocess import ImageError, jpeg, open_image
from vlmkit.preprocess.images import MAX_PIXELS, decode
from vlmkit.preprocess.jpeg_scans import scans_of

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def fast(data: bytes) -> np.ndarray | None:
    return jpeg.decode(data, MAX_PIXELS)


def orientation(value: int, order: str = "<") -> bytes:
    """An EXIF block with nothing but an orientation."""
    exif = Image.Exif()
    exif.endian = order
    exif[0x0112] = value
    return exif.tobytes()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("quality", [30, 75, 90, 100])
@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:2", "4:2:0"])
def test_fast_pixels_are_the_careful_ones(name, quality, subsampling):
    data = encoded(picture(name), quality=quality, subsampling=subsampling)
    assert difference(fast(data), open_image(data)) == 0


@pytest.mark.parametrize(
    "options", [{"progressive": True}, {"restart_marker_blocks": 3}, {"restart_marker_rows": 1}, {"optimize": True}, {"keep_rgb": True}]
)
@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (17, 31), (333, 225)])
def test_every_kind_of_plain_jpeg_takes_the_fast_path(options, size):
    data = encoded(picture("coffee", size), quality=85, **options)
    assert difference(fast(data), open_image(data)) == 0


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_all_orientations(value, order, mode):
    upright = picture("rocket", (30, 50))
    data = encoded(upright.convert(mode), quality=95, exif=orientation(value, order))
    assert difference(fast(data), open_image(data)) == 0
    assert difference(fast(data), ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")) == 0


def test_an_srgb_profile_keeps_the_fast_path():
    data = encoded(picture(), icc_profile=SRGB)
    assert difference(fast(data), open_image(data)) == 0


def test_a_profile_in_several_segments():
    data = encoded(picture(), icc_profile=SRGB + bytes(200_000))
    assert data.count(b"ICC_PROFILE\0") > 1
    assert difference(fast(data), open_image(data)) == 0


def with_segment(data: bytes, marker: int, body: bytes) -> bytes:
    return data[:2] + bytes([0xFF, marker]) + (len(body) + 2).to_bytes(2, "big") + body + data[2:]


PLAIN = encoded(Image.fromarray(np.full((16, 24, 3), 90, np.uint8)))


@pytest.mark.parametrize(
    ("what", "data"),
    [
        ("CMYK", encoded(Image.new("CMYK", (8, 8)))),
        ("another format", encoded(Image.new("RGB", (8, 8)), "PNG")),
        ("two EXIF blocks", with_segment(with_segment(PLAIN, 0xE1, orientation(6)), 0xE1, orientation(3))),
        ("a broken EXIF block", with_segment(PLAIN, 0xE1, b"Exif\0\0broken")),
        ("an orientation of 9", with_segment(PLAIN, 0xE1, orientation(9))),
        ("orientation in XMP alone", with_segment(PLAIN, 0xE1, b'http://ns.adobe.com/xap/1.0/\0 tiff:Orientation="6"')),
        ("arithmetic coding", PLAIN.replace(b"\xff\xc0", b"\xff\xc9")),
        ("12 bits", PLAIN.replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc1\x00\x11\x0c")),
        ("truncated", PLAIN[:-4]),
        ("truncated in its header", PLAIN[:100]),
        ("nothing", b""),
        ("two bytes", b"\xff\xd8"),
        ("text", b"\xff\xd8\xff no"),
    ],
)
def test_the_rest_is_left_to_the_careful_path(what, data):
    assert fast(data) is None


def test_orientation_in_xmp_alone_is_applied():
    data = with_segment(PLAIN, 0xE1, b'http://ns.adobe.com/xap/1.0/\0 tiff:Orientation="6"')
    assert decode(data).shape == (24, 16, 3)
    with_both = with_segment(with_segment(PLAIN, 0xE1, b'http://ns.adobe.com/xap/1.0/\0 tiff:Orientation="6"'), 0xE1, orientation(1))
    assert fast(with_both).shape == decode(with_both).shape == (16, 24, 3)


def test_a_phone_picture_with_a_film_behind_it():
    """Motion photographs append an MP4; any two bytes can occur in it."""
    data = encoded(picture(), progressive=True) + b"\xff\xda\x00\x02" * 1000
    assert difference(fast(data), open_image(data)) == 0


def test_a_scan_bomb_is_refused():
    data = encoded(picture("china", (200, 300)), progressive=True)
    last = data.rindex(b"\xff\xda")
    # A decoder walks the picture once for each of these; garbage before a marker does not hide it.
    bomb = data[:-2] + (b"garbage" + data[last:-2]) * 200 + data[-2:]
    assert scans_of(data).count <= 10
    for read in (open_image, decode):
        with pytest.raises(ImageError, match="more than 50 scans"):
            read(bomb)


def test_a_container_of_two_pictures_gives_the_first():
    red, blue = Image.new("RGB", (40, 60), (255, 0, 0)), Image.new("RGB", (40, 60), (0, 0, 255))
    data = encoded(red, "MPO", save_all=True, append_images=[blue])
    assert difference(decode(data), open_image(data)) == 0
    assert difference(decode(data), red) <= 2


@settings(max_examples=60, deadline=None)
@given(cut=st.floats(0, 1), progressive=st.booleans())
def test_a_truncated_file_is_an_error_never_grey(cut, progressive):
    data = encoded(picture("coffee", (80, 120)), progressive=progressive)
    short = data[: int(cut * (len(data) - 2))]
    for read in (open_image, decode):
        with pytest.raises(ImageError):
            read(short)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), progressive=st.booleans())
def test_damage_gives_an_error_or_the_same_picture_on_both_paths(data, progressive):
    damaged = bytearray(encoded(picture("coffee", (48, 64)), progressive=progressive, exif=orientation(6)))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    pixels = fast(bytes(damaged))
    try:
        careful = open_image(bytes(damaged), max_pixels=10_000_000)
    except ImageError:
        assert pixels is None
    else:
        assert pixels is None or difference(pixels, careful) == 0


def test_more_pixels_than_asked_for_are_refused_by_the_header():
    wide = PLAIN.replace(b"\x08\x00\x10\x00\x18", b"\x08\xff\xff\xff\xff")
    for read in (open_image, decode):
        with pytest.raises(ImageError, match=r"65535x65535|limit"):
            read(wide)
