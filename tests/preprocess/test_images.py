"""Whatever a person may hand over becomes the right RGB picture, or an ImageError in our own words."""

from __future__ import annotations

import base64
import contextlib
import io
import os
import re
import struct
import subprocess
import sys
import threading
import time
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageOps

from tests.memory import peak_memory
from tests.photos import NAMES, difference, encoded, photo, picture
from vlmkit.preprocess import ImageError, open_image
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.images import MAX_PIXELS, decode, image_size
from vlmkit.preprocess.quiet import quiet

PNG = encoded(picture("coffee", (30, 40)), "PNG")


def refused(source, match: str = "", **options) -> str:
    """Both readers refuse it, with the same text, which holds no address; the text."""
    texts = []
    for read in (open_image, decode):
        with pytest.raises(ImageError, match=match) as caught:
            read(source, **options)
        texts.append(str(caught.value))
    assert texts[0] == texts[1]
    assert not re.search(r"0x[0-9a-f]{6}| at 0x|<_io", texts[0])
    assert "\n" not in texts[0]
    return texts[0]


def opened(source) -> Image.Image:
    """open_image, after checking that decode agrees and that nothing is left to do a second time."""
    image = open_image(source)
    assert type(image).__module__.startswith("PIL.")
    assert image.mode == "RGB"
    pixels = decode(source)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert difference(image, pixels) == 0
    assert difference(open_image(image), image) == 0
    return image


# --- what is read ---


@pytest.mark.parametrize("name", ["coffee", "page"])
@pytest.mark.parametrize(
    ("format", "options", "tolerance"),
    [
        ("PNG", {}, 0),
        ("BMP", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        ("JPEG", {"quality": 100, "subsampling": 0}, 4),
    ],
)
def test_formats(name, format, options, tolerance):
    assert difference(opened(encoded(picture(name), format, **options)), photo(name)) <= tolerance


def test_every_kind_of_source(tmp_path):
    path = tmp_path / "naïve picture.png"
    path.write_bytes(PNG)
    uri = "data:image/png;base64," + base64.b64encode(PNG).decode()
    expected = picture("coffee", (30, 40))
    array = np.asarray(expected)
    read_to_its_end = io.BytesIO(PNG)
    read_to_its_end.read()
    with open(path, "rb") as file:
        for source in (
            path,
            str(path),
            os.fsencode(path) and Path(path),
            PNG,
            bytearray(PNG),
            memoryview(PNG),
            read_to_its_end,
            file,
            uri,
            expected,
        ):
            assert difference(opened(source), expected) == 0
    for source in (
        array,
        torch.from_numpy(array.copy()),
        torch.from_numpy(array.copy()).permute(2, 0, 1),
        array / 255,
        array.astype(np.uint16) * 257,
    ):
        assert difference(opened(source), expected) == 0


def test_an_rgb_image_comes_back_uncopied_and_nothing_is_changed():
    image = picture()
    assert open_image(image) is image
    turned = picture()
    turned.getexif()[0x0112] = 6
    turned.info["note"] = "kept"
    assert opened(turned).size == (turned.height, turned.width)
    assert turned.info["note"] == "kept"
    assert turned.getexif()[0x0112] == 6
    pixels = photo("chelsea")
    assert decode(pixels) is pixels


@pytest.mark.parametrize("value", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_orientation_in_every_format(value, format):
    upright = picture("rocket", (30, 50))
    exif = Image.Exif()
    exif[0x0112] = value
    data = encoded(upright, format, exif=exif, **({"lossless": True} if format == "WEBP" else {}))
    with Image.open(io.BytesIO(data)) as image:
        expected = ImageOps.exif_transpose(image).convert("RGB")
    assert difference(opened(data), expected) == 0
    with Image.open(io.BytesIO(data)) as image:
        assert difference(opened(image), expected) == 0


def test_a_broken_exif_block_is_ignored():
    data = encoded(picture(), exif=b"Exif\0\0II*\0\xff\xff\xff\xff nonsense")
    assert difference(opened(data), opened(encoded(picture()))) == 0


# --- colour ---


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_alpha_is_composited_on_white(mode):
    image = picture("chelsea", (40, 40)).convert(mode.removesuffix("A").replace("P", "P") or "L").convert(mode)
    alpha = Image.new("L", image.size, 0)
    alpha.paste(255, (0, 0, 20, 40))
    alpha.paste(128, (10, 0, 20, 40))
    image.putalpha(alpha)
    solid = np.asarray(image.convert("RGBA").convert("RGB")).astype(int)
    weight = np.asarray(alpha)[:, :, None] / 255
    expected = np.rint(solid * weight + 255 * (1 - weight))
    assert difference(opened(image), expected) <= 1
    if mode != "PA":
        assert difference(opened(encoded(image, "PNG")), expected) <= 1
        assert difference(opened(encoded(image, "TIFF")), expected) <= 1


def test_an_opaque_alpha_changes_nothing():
    assert difference(opened(encoded(picture().convert("RGBA"), "PNG")), picture()) == 0


@pytest.mark.parametrize(
    ("image", "transparency", "black"),
    [
        (Image.new("1", (3, 2), 1), None, 255),
        (Image.new("1", (3, 2), 0), 0, 255),
        (Image.new("L", (3, 2), 7), 7, 255),
        (Image.new("L", (3, 2), 7), 8, 7),
        (Image.new("P", (3, 2), 0), 0, 255),
        (Image.new("P", (3, 2), 0), bytes([0, 0]), 255),
        (Image.new("RGB", (3, 2), (7, 7, 7)), (7, 7, 7), 255),
        (Image.new("RGB", (3, 2), (7, 7, 7)), (7, 7, 8), 7),
    ],
)
def test_transparent_colours(image, transparency, black):
    if image.mode == "P":
        image.putpalette([9] * 768)
    options = {} if transparency is None else {"transparency": transparency}
    assert (np.asarray(opened(encoded(image, "PNG", **options))) == black).all()


def chunked_png(width: int, height: int, depth: int, kind: int, rows: bytes, *chunks: tuple[bytes, bytes], packed: bool = False) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IDAT", rows if packed else zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in parts
    )


def test_a_transparent_colour_of_16_bits_a_channel():
    """Pillow narrows the samples and would compare them with the wide colour, so that nothing is transparent."""
    rows = b"\0" + struct.pack(">6H", 0x1234, 0x5678, 0x9ABC, 0xFFFF, 0, 0)
    data = chunked_png(2, 1, 16, 2, rows, (b"tRNS", struct.pack(">3H", 0x1234, 0x5678, 0x9ABC)))
    assert np.asarray(opened(data)).tolist() == [[[255, 255, 255], [255, 0, 0]]]


def test_a_transparent_grey_of_16_bits():
    data = chunked_png(2, 1, 16, 0, b"\0" + struct.pack(">2H", 1000, 1001), (b"tRNS", struct.pack(">H", 1000)))
    assert np.asarray(opened(data))[0, :, 0].tolist() == [255, 4]


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_is_rescaled(format):
    wide = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    expected = np.rint(wide / 257)
    for source in (
        encoded(Image.fromarray(wide), format),
        Image.fromarray(wide),
        wide,
        wide.astype(">u2"),
        Image.fromarray(wide.astype(">u2")),
    ):
        assert difference(np.asarray(opened(source))[:, :, 1], expected) == 0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([[0, 100, 255]], np.int32), [0, 100, 255]),
        (np.array([[0, 257, 65535]], np.int32), [0, 1, 255]),
        (np.array([[-100, 0, 100]], np.int32), [0, 128, 255]),
        (np.array([[0, 1 << 20, 1 << 21]], np.int32), [0, 128, 255]),
        (np.array([[0.0, 0.5, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[0.0, 99.6, 255.0]], np.float32), [0, 100, 255]),
        (np.array([[-1.0, 0.0, 1.0]], np.float32), [0, 128, 255]),
        (np.array([[-7.0, -7.0, -7.0]], np.float32), [0, 0, 0]),
    ],
)
def test_32_bit_pictures_are_rescaled_by_their_range(values, expected):
    assert np.asarray(opened(Image.fromarray(values)))[0, :, 0].tolist() == expected


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none_are_refused(bad):
    refused(Image.fromarray(np.array([[0, bad]], np.float32)), "cannot be read")
    refused(np.array([[0, bad]]), "0 to 1")


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "I;16B", "I;16L", "F"],
)
def test_every_mode_of_pillow(mode):
    grey = Image.linear_gradient("L")
    if mode.startswith("I;16"):
        image = Image.fromarray(np.asarray(grey).astype(">u2" if mode.endswith("B") else "<u2") * 257)
    elif mode == "La":
        image = grey.convert("LA").convert("La")
    elif mode == "LAB":
        image = ImageCms.profileToProfile(
            grey.convert("RGB"), ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
        )
    else:
        image = (grey.convert("RGBA") if mode == "RGBa" else grey.convert("RGB") if mode == "HSV" else grey).convert(mode)
    result = np.asarray(opened(image)).astype(int)
    assert np.abs(result - (np.asarray(grey) >= 128)[..., None] * 255 if mode == "1" else result - np.asarray(grey)[..., None]).max() <= (
        255 if mode == "1" else 3
    )


def test_cmyk_as_adobe_writes_it():
    image = picture("chelsea", (64, 64))
    cmyk = image.convert("CMYK")
    assert difference(opened(encoded(cmyk, "TIFF")), image) <= 1
    assert difference(opened(encoded(cmyk, "JPEG", quality=100, subsampling=0)), image) <= 8


def profile_of(gamma: float, primaries: tuple[tuple[float, float, float], ...]) -> bytes:
    """A matrix profile of ICC version 2, as cameras and editors write them."""

    def fixed(value: float) -> bytes:
        return struct.pack(">i", round(value * 65536))

    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256)) + b"\0\0"
    points = [b"XYZ \0\0\0\0" + b"".join(map(fixed, point)) for point in ((0.9642, 1.0, 0.8249), *primaries)]
    text = b"desc\0\0\0\0" + struct.pack(">I", 5) + b"test\0" + bytes(78)
    tags = {b"desc": text + bytes(-len(text) % 4), b"wtpt": points[0], b"rXYZ": points[1], b"gXYZ": points[2], b"bXYZ": points[3]}
    tags |= {b"rTRC": curve, b"gTRC": curve, b"bTRC": curve}
    table, body, start = b"", b"", 128 + 4 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", start + len(body), len(value))
        body += value
    head = struct.pack(">I4sI4s4s4s", 0, b"lcms", 0x02100000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp" + bytes(28)
    head += b"".join(map(fixed, (0.9642, 1.0, 0.8249))) + bytes(48)
    whole = head + struct.pack(">I", len(tags)) + table + body
    return struct.pack(">I", len(whole)) + whole[4:]


ADOBE_RGB = profile_of(2.2, ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457)))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_a_wide_profile_is_converted_to_srgb(format):
    image = picture("coffee", (64, 96))
    data = encoded(image, format, icc_profile=ADOBE_RGB, **({"lossless": True} if format == "WEBP" else {}))
    with Image.open(io.BytesIO(data)) as stored:
        expected = ImageCms.profileToProfile(stored, ImageCms.ImageCmsProfile(io.BytesIO(ADOBE_RGB)), ImageCms.createProfile("sRGB"))
        assert difference(expected, stored) > 20
    result = opened(data)
    assert difference(result, expected) == 0
    assert "icc_profile" not in result.info


def test_a_profile_is_applied_below_alpha_and_behind_a_palette():
    image = Image.new("RGBA", (4, 4), (10, 200, 30, 255))
    expected = opened(encoded(image.convert("RGB"), "PNG", icc_profile=ADOBE_RGB))
    assert difference(expected, image.convert("RGB")) > 10
    assert difference(opened(encoded(image, "PNG", icc_profile=ADOBE_RGB)), expected) == 0
    assert difference(opened(encoded(image.convert("RGB").quantize(4), "PNG", icc_profile=ADOBE_RGB)), expected) <= 1


@pytest.mark.parametrize(
    "profile", [b"\0" * 200, b"not a profile", SRGB[: len(SRGB) // 2], ADOBE_RGB[:132] + bytes(300), ADOBE_RGB.replace(b"RGB ", b"GRAY")]
)
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_a_broken_profile_is_ignored(profile, format):
    image = picture("coffee", (20, 30))
    assert difference(opened(encoded(image, format, icc_profile=profile)), opened(encoded(image, format))) == 0


def test_an_rgb_profile_on_a_grey_picture_is_ignored():
    grey = picture().convert("L")
    assert difference(opened(encoded(grey, icc_profile=ADOBE_RGB)), opened(encoded(grey))) == 0


# --- animations and strange shapes ---


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_gives_its_first_frame(format):
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    options = {"lossless": True} if format == "WEBP" else {}
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)
    assert Image.open(io.BytesIO(data)).n_frames == 3
    assert difference(opened(data), frames[0]) <= 3
    with Image.open(io.BytesIO(data)) as image:
        image.seek(1)
        assert difference(open_image(image), frames[1]) <= 3


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (1, 65000)])
@pytest.mark.parametrize("format", ["JPEG", "PNG", "BMP", "TIFF"])
def test_thin_pictures(size, format):
    assert opened(encoded(Image.new("RGB", (size[1], size[0]), (9, 9, 9)), format)).size == (size[1], size[0])


@pytest.mark.parametrize(
    ("array", "shape"),
    [
        (np.zeros((3, 5), np.uint8), (3, 5)),
        (np.zeros((3, 5, 1), np.uint8), (3, 5)),
        (np.zeros((3, 5, 3), bool), (3, 5)),
        (np.zeros((3, 5, 4), np.float16), (3, 5)),
        (np.zeros((3, 5, 3), np.uint8)[::-1, ::2], (3, 3)),
        (torch.zeros(3, 5, 7), (5, 7)),
        (torch.zeros(5, 7, 3), (5, 7)),
        (torch.zeros(1, 5, 7, dtype=torch.bfloat16), (5, 7)),
        (torch.zeros(5, 7, requires_grad=True), (5, 7)),
        (torch.zeros(4, 5, 7, dtype=torch.uint16), (5, 7)),
    ],
)
def test_arrays_and_tensors(array, shape):
    image = opened(array)
    assert (image.height, image.width) == shape


def test_values_of_arrays():
    assert np.asarray(opened(np.array([[True, False]])))[0, :, 0].tolist() == [255, 0]
    assert np.asarray(opened(np.array([[0, 0.5, 1, 1.0001]])))[0, :, 0].tolist() == [0, 128, 255, 255]
    assert np.asarray(opened(np.array([[[0, 0, 0, 0], [0, 0, 0, 51], [1, 2, 3, 255]]], np.uint8)))[0].tolist() == [
        [255] * 3,
        [204] * 3,
        [1, 2, 3],
    ]


# --- what is refused ---


@pytest.mark.parametrize(
    ("source", "match"),
    [
        (None, "None is no picture, expected a path"),
        (3, "a int is no picture"),
        (["a.jpg"], "a list is no picture"),
        ({"bytes": None, "path": None}, r"a dict is no picture, expected \{'bytes': ..., 'path': ...\} as a table holds it"),
        ({"path": "no/such.png", "bytes": None}, "'no/such.png' does not exist"),
        ({"bytes": {"bytes": b""}}, "a dict is no picture"),
        (b"", "bytes of length 0 is empty"),
        (b"hello, this is text", "bytes of length 19 cannot be read"),
        (b"\xff\xd8\xff", "bytes of length 3 cannot be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "cannot be read"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "cannot be read"),
        ("no/such/file.jpg", "'no/such/file.jpg' does not exist"),
        (Path("no/such/file.jpg"), "'no/such/file.jpg' does not exist"),
        ("a\0b", "cannot be opened"),
        ("x" * 5000, "length 5000"),
        ("", "'' is a directory|does not exist"),
        ("/", "'/' is a directory"),
        ("/dev/zero", "a device, pipe or socket"),
        ("https://example.com/a.jpg", "is a URL, and URLs are not fetched; download it"),
        ("HTTP://example.com/a.jpg", "is a URL"),
        ("file:///etc/passwd", "'file:///etc/passwd' cannot be read"),
        ("file:///no/such.png", "'/no/such.png' does not exist"),
        ("data:image/png;base64,@@@", "not valid base64"),
        ("data:text/plain,hello", "data URI without base64"),
        ("data:image/png;base64," + "A" * 4000, "length 4022"),
        (io.StringIO("text"), "file object of type StringIO gives str"),
        (np.zeros((0, 5, 3), np.uint8), "is empty"),
        (np.zeros((5,), np.uint8), "is no picture"),
        (np.zeros((5, 5, 2), np.uint8), r"expected \(H, W\)"),
        (np.zeros((3, 50, 50), np.uint8), "array.transpose"),
        (np.zeros((2, 5, 5, 3), np.uint8), "one picture at a time"),
        (np.zeros((5, 5), np.int64), "expected uint8, uint16, bool or floating"),
        (np.zeros((5, 5), complex), "expected uint8"),
        (np.full((5, 5), "a"), "expected uint8"),
        (np.full((5, 5), 255.0), "divide by 255"),
        (np.full((5, 5), -1.0), "holds -1 to -1"),
        (torch.zeros(3, 50, 3), "may be channels first or last"),
        (torch.zeros(1, 3, 50, 50), "one picture at a time"),
        (torch.zeros(5, 5, device="meta"), "no values that can be read"),
        (torch.zeros(5, 5).to_sparse(), "no values that can be read"),
        (torch.zeros(5, 5, dtype=torch.int32), "type int32"),
    ],
    ids=lambda value: str(value)[:30].replace("\0", "") if isinstance(value, str) else type(value).__name__,
)
def test_what_is_refused_and_how(source, match):
    refused(source, match)


@pytest.mark.parametrize("name", ["a.png", "a b%41é.png"])
def test_a_local_file_may_be_spelled_as_a_url(tmp_path, monkeypatch, name):
    Image.new("RGB", (5, 3), "red").save(tmp_path / name)
    monkeypatch.chdir(tmp_path)
    for spelled in ((tmp_path / name).as_uri(), "FILE://" + quote(name)):
        assert open_image(spelled).size == (5, 3)
        assert image_size(spelled) == Size(3, 5)


def test_the_cell_of_a_table_is_opened_without_decoding_the_table(tmp_path):
    datasets = pytest.importorskip("datasets", reason="the extra `trl`")
    image = Image.new("RGB", (5, 3), "red")
    image.save(tmp_path / "a.png")
    table = datasets.Dataset.from_dict({"image": [image, str(tmp_path / "a.png")]}).cast_column("image", datasets.Image(decode=False))
    for cell in table["image"]:
        assert isinstance(cell, dict)
        assert open_image(cell).tobytes() == image.tobytes()
        assert np.array_equal(decode(cell), np.asarray(image))
        assert image_size(cell) == Size(3, 5)


def test_a_pipe_does_not_hang(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "a device, pipe or socket")


def test_a_file_that_may_not_be_read(tmp_path, monkeypatch):
    path = tmp_path / "secret.png"
    path.write_bytes(PNG)
    monkeypatch.setattr("builtins.open", lambda *_: (_ for _ in ()).throw(PermissionError(13, "Permission denied", str(path))))
    refused(path, "Permission denied")


@pytest.mark.parametrize("format", ["PCX", "EPS", "PDF", "DDS", "SGI", "JPEG XL"])
def test_other_formats_are_not_reached(format):
    data = b"\xff\x0a" + bytes(40) if format == "JPEG XL" else encoded(Image.new("RGB", (16, 16)), format)
    refused(data, "cannot be read: no picture begins with")


@pytest.mark.parametrize("format", ["PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG"])
@pytest.mark.parametrize("kept", [0.3, 0.6, 0.9])
def test_truncated_files(format, kept):
    data = encoded(picture("coffee", (60, 90)), format)
    refused(data[: int(kept * len(data))], "cannot be read")
    with pytest.raises(ImageError):
        open_image(Image.open(io.BytesIO(data[: int(kept * len(data))])) if format not in ("WEBP", "TIFF") else b"")


# --- bombs ---


def bomb(format: str) -> bytes:
    """A small file whose header promises 2.5 thousand million pixels."""
    side = 50_000
    if format == "PNG":
        return chunked_png(side, side, 8, 2, b"\0")
    small = encoded(Image.new("RGB", (257, 258)), format)
    if format == "GIF":
        return small.replace(struct.pack("<HH", 257, 258), struct.pack("<HH", side, side))
    if format == "BMP":
        return small.replace(struct.pack("<ii", 257, 258), struct.pack("<ii", side, side))
    if format == "JPEG":
        return small.replace(struct.pack(">HH", 258, 257), struct.pack(">HH", side, side))
    data = bytearray(small)
    start = struct.unpack_from("<I", data, 4)[0]
    for entry in range(start + 2, start + 2 + 12 * struct.unpack_from("<H", data, start)[0], 12):
        if struct.unpack_from("<H", data, entry)[0] in (256, 257):
            struct.pack_into("<HII", data, entry + 2, 4, 1, side)
    return bytes(data)


@pytest.mark.parametrize("format", ["PNG", "GIF", "BMP", "JPEG", "TIFF"])
def test_a_bomb_is_refused_before_it_is_decoded(format):
    data = bomb(format)
    start = time.perf_counter()
    with peak_memory() as peak:
        refused(data, "pixels")
    assert time.perf_counter() - start < 1
    assert peak() < 100e6


def test_the_bound_is_ours_and_inclusive():
    image = picture("coffee", (30, 40))
    for source in (PNG, encoded(image), image, np.asarray(image)):
        assert open_image(source, max_pixels=1200).size == (40, 30)
        refused(source, "max_pixels", max_pixels=1199)
    # A warning of Pillow's begins at 89 million pixels; a picture between that and our bound must open in silence.
    assert Image.MAX_IMAGE_PIXELS < 100_000_000 < MAX_PIXELS


def test_pillows_own_bound_is_told_apart(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    refused(PNG, "Pillow's own limit of 1000 pixels")


@pytest.mark.parametrize("chunk", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_bomb_in_a_text_chunk(chunk):
    packed = zlib.compress(bytes(150_000_000), 1)
    body = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[chunk] + packed
    data = chunked_png(1, 1, 8, 2, b"\0abc", (chunk, body))
    with peak_memory() as peak, contextlib.suppress(ImageError):
        open_image(data)
    assert peak() < 100e6


MEMORY = """
import sys
from pathlib import Path
from vlmkit.preprocess.images import decode, open_image
def peak():
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0]) * 1024
data = Path(sys.argv[2]).read_bytes()
before = peak()
result = (decode if sys.argv[1] == "decode" else open_image)(data, max_pixels=400_000_000)
print((peak() - before) / 100e6)
"""


def hundred_megapixels(kind: str) -> bytes:
    """10,000 x 10,000 pixels, cheaply."""
    if kind == "PNG with alpha":
        packer = zlib.compressobj(1)
        rows = b"".join(packer.compress(b"\0" + bytes(40_000)) for _ in range(10_000)) + packer.flush()
        return chunked_png(10_000, 10_000, 8, 6, rows, packed=True)
    options = {"progressive": kind == "progressive JPEG", "quality": 90}
    return encoded(Image.new("RGB", (10_000, 10_000), (1, 2, 3)), **options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "reader", "bytes_a_pixel"),
    [
        # Measured: 3.0, 7.0, 6.0, 7.0, 8.1
        ("JPEG", "decode", 4),
        ("JPEG", "open_image", 8),
        ("progressive JPEG", "decode", 7),
        ("progressive JPEG", "open_image", 8),
        ("PNG with alpha", "open_image", 9),
    ],
)
def test_a_hundred_megapixels_open_in_bounded_memory(kind, reader, bytes_a_pixel, tmp_path):
    (tmp_path / "large").write_bytes(hundred_megapixels(kind))
    run = subprocess.run([sys.executable, "-c", MEMORY, reader, tmp_path / "large"], check=True, capture_output=True, text=True)
    assert float(run.stdout) < bytes_a_pixel


# --- manners ---


def test_no_warning_of_pillow_leaks_and_no_filter_is_left():
    exif = encoded(picture("coffee", (20, 30)), exif=b"Exif\0\0II*\0\x08\0\0\0\x05\0 broken")
    before = list(warnings.filters)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        open_image(exif)
        decode(exif)
    assert not caught
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_image(exif).size == (30, 20)
    assert warnings.filters == before


def test_quiet_in_many_threads_leaves_the_filters_as_they_were():
    before, barrier = list(warnings.filters), threading.Barrier(8)

    def enter_and_leave(delay: float) -> None:
        barrier.wait()
        with quiet():
            time.sleep(delay)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(enter_and_leave, [0.001 * index for index in range(8)]))
    assert warnings.filters == before


def test_many_threads_read_the_same_pictures():
    sources = [encoded(picture(name), format, icc_profile=ADOBE_RGB) for name in NAMES[:3] for format in ("JPEG", "PNG")] * 4
    alone = [decode(source) for source in sources]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(decode, sources))
    assert all(difference(a, b) == 0 for a, b in zip(alone, together, strict=True))


def test_opening_needs_no_torch():
    code = "import sys, numpy; from vlmkit.preprocess import open_image; open_image(numpy.zeros((2, 2))); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@settings(max_examples=150, deadline=None)
@given(data=st.data(), format=st.sampled_from(["PNG", "GIF", "WEBP", "TIFF", "BMP", "JPEG"]), mode=st.sampled_from(["RGB", "P", "L"]))
def test_damage_gives_a_picture_or_an_image_error(data, format, mode):
    options = {"compression": data.draw(st.sampled_from(["raw", "tiff_lzw", "tiff_deflate", "packbits"]))} if format == "TIFF" else {}
    image = picture("coffee", (24, 32)).convert(mode)
    image = image.convert("RGB") if format in ("WEBP", "JPEG") and mode == "P" else image
    damaged = bytearray(encoded(image, format, icc_profile=ADOBE_RGB, **options))
    for _ in range(data.draw(st.integers(0, 5))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    damaged = damaged[: data.draw(st.integers(0, len(damaged)))] if data.draw(st.booleans()) else damaged
    start = time.perf_counter()
    try:
        assert open_image(bytes(damaged), max_pixels=10_000_000).mode == "RGB"
    except ImageError as error:
        assert "0x7" not in str(error)
    assert time.perf_counter() - start < 5


@settings(max_examples=100, deadline=None)
@given(
    st.binary(max_size=300),
    st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"RIFF\0\0\0\0WEBPVP8 ", b"BM", b"II*\0", b"MM\0*"]),
)
def test_noise_raises_an_image_error_and_nothing_else(noise, magic):
    with contextlib.suppress(ImageError):  # a few bytes may be a picture
        open_image(magic + noise, max_pixels=1_000_000)
