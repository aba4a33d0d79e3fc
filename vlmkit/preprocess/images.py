"""Opening images: whatever a person may hand over becomes one correct RGB picture, or an ImageError that says why not.

`open_image` is what people call and returns a PIL image; `decode` is the same picture as an array, faster for JPEG.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from vlmkit.preprocess import jpeg
from vlmkit.preprocess.colour import to_rgb
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.image_arrays import Pixels, from_array
from vlmkit.preprocess.image_bytes import read
from vlmkit.preprocess.image_errors import ImageError, describe, errors_of, is_array
from vlmkit.preprocess.quiet import quiet

__all__ = ["FORMATS", "MAX_PIXELS", "ImageError", "Pixels", "decode", "image_size", "open_image"]

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
"""What is read; other decoders of Pillow are never reached."""
MAX_PIXELS = 160_000_000
"""Bound on height x width, checked against the header before anything is decoded: a 150-megapixel photograph opens.

At its peak, measured at 100 megapixels, decoding takes 3 bytes a pixel for a JPEG, 6 for a progressive or a turned one, 10
for most others and 21 for a WebP: 0.5 to 3.4 GB at the bound.
"""


def open_image(source: Any, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture as a PIL image of mode RGB, upright, in sRGB, composited on white.

    source is one of
    - a path (str or PathLike) of a JPEG, PNG, WEBP, GIF, BMP or TIFF; a `data:` URI; other URLs are not fetched;
    - the bytes of such a file (bytes, bytearray, memoryview), or a binary file object, read from its start;
    - a PIL image, its current frame; an RGB one that is already upright sRGB comes back as it is, not copied;
    - a numpy array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): uint8, uint16, bool, or floating from 0 to 1;
    - a torch tensor of the same types, (H, W), channels first or channels last, where its shape says which.

    An animation gives its first frame. EXIF rotation is applied. A valid ICC profile is converted to sRGB, a broken one
    ignored. 16-bit samples are divided by 257; for 32-bit and floating modes see `colour.to_rgb`. Raises ImageError for
    everything else: truncated or corrupt files, more than `max_pixels` pixels, directories, devices, unknown formats.
    """
    if isinstance(source, Image.Image):
        with errors_of(describe(source), "a PIL image that can be loaded"), quiet():
            _check_size(source, describe(source), max_pixels)
            return to_rgb(source)
    if is_array(source):
        return Image.fromarray(from_array(source, max_pixels))
    return _open_bytes(read(source), describe(source), max_pixels)


def decode(source: Any, *, max_pixels: int = MAX_PIXELS) -> Pixels:
    """The picture of `open_image` as an array (H, W, 3) of uint8, by the fast path where the file is an ordinary JPEG."""
    if is_array(source):
        return from_array(source, max_pixels)
    if not isinstance(source, Image.Image):
        data = read(source)
        fast = jpeg.decode(data, max_pixels)
        if fast is not None:
            return fast
        return np.array(_open_bytes(data, describe(source), max_pixels))
    return np.array(open_image(source, max_pixels=max_pixels))


def image_size(source: Any) -> Size:
    """Height and width of the picture of `open_image`, upright, from its header alone where that suffices. Raises ImageError."""
    if is_array(source) or isinstance(source, Image.Image):
        width, height = open_image(source).size
        return Size(height, width)
    data = read(source)
    header = jpeg.read_header(data)
    if header is not None and 0 < header.height * header.width <= MAX_PIXELS:
        return Size(header.width, header.height) if header.orientation > 4 else Size(header.height, header.width)
    try:
        with quiet(), Image.open(io.BytesIO(data), formats=[name for name in FORMATS if name != "TIFF"]) as image:
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
            size = Size(image.width, image.height) if turned else Size(image.height, image.width)
            if size.pixels <= MAX_PIXELS:
                return size
    except Exception:
        # Whatever the matter is, opening the whole picture finds it again and has the words for it.
        pass
    width, height = _open_bytes(data, describe(source), MAX_PIXELS).size
    return Size(height, width)


def _open_bytes(data: bytes, name: str, max_pixels: int) -> Image.Image:
    if not data:
        raise ImageError(f"{name} is empty, expected a picture ({', '.join(FORMATS)})")
    if data.startswith(b"\xff\xd8") and jpeg.count_scans(data) > jpeg.MAX_SCANS:
        raise ImageError(f"{name} is a JPEG of more than {jpeg.MAX_SCANS} scans, expected about 10; save it again as a baseline JPEG")
    with errors_of(name, f"a complete picture ({', '.join(FORMATS)})"), quiet(), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        _check_size(image, name, max_pixels)
        return to_rgb(image)


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if height < 1 or width < 1:
        raise ImageError(f"{name} is {height}x{width} pixels, expected at least one")
    if height * width > max_pixels:
        raise ImageError(
            f"{name} is {height}x{width} = {height * width} pixels, expected at most {max_pixels}; "
            "make it smaller, or pass a larger max_pixels if you trust it"
        )
