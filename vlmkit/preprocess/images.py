"""Opening images: whatever a person may hand over becomes one correct RGB picture, or an ImageError that says why not.

`open_image` is what people call and returns a PIL image; `decode` is the same picture as an array, faster for JPEG.
"""

from __future__ import annotations

from typing import Any

from PIL import ExifTags, Image

from vlmkit.preprocess import jpeg
from vlmkit.preprocess.bounds import check_pixels
from vlmkit.preprocess.colour import to_array, to_rgb
from vlmkit.preprocess.encoded import FORMATS, MAX_PIXELS, survey
from vlmkit.preprocess.encoded.surveys import Survey, check_bounds
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.image_arrays import Pixels, from_array
from vlmkit.preprocess.image_bytes import read
from vlmkit.preprocess.image_errors import ImageError, describe, errors_of, is_array
from vlmkit.preprocess.quiet import quiet

__all__ = ["FORMATS", "MAX_PIXELS", "ImageError", "Pixels", "decode", "image_size", "open_image"]

_EXPECTED = f"a complete picture ({', '.join(FORMATS)})"


def open_image(source: Any, *, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """The picture as a PIL image of mode RGB, upright, in sRGB, composited on white.

    source is one of
    - a path (str or PathLike) of a file in one of FORMATS, also as `file://`; a `data:` URI; other URLs are not fetched;
    - the bytes of such a file (bytes, bytearray, memoryview), or a binary file object, read from its start;
    - {"bytes": ..., "path": ...}, as a table of Hugging Face's datasets holds a picture that is not decoded;
    - a PIL image, its current frame; an RGB one that is already upright sRGB comes back as it is, not copied;
    - a numpy array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4): uint8, uint16, bool, or floating from 0 to 1;
    - a torch tensor of the same types, (H, W), channels first or channels last, where its shape says which.

    An animation gives its first frame. EXIF rotation is applied. A valid ICC profile is converted to sRGB, a broken one
    ignored. 16-bit samples are divided by 257; for 32-bit and floating modes see `colour.to_rgb`. Every pixel was in the file.

    max_pixels: bound on height x width, where kinds that cost more count more (`encoded.surveys`). Raises ImageError for
    everything else: truncated or corrupt files, files that are too large or take too long, directories, devices, unknown formats.
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
        return to_array(_open_bytes(data, describe(source), max_pixels))
    return to_array(open_image(source, max_pixels=max_pixels))


def image_size(source: Any) -> Size:
    """Height and width of the picture of `open_image`, upright, from its header alone where that suffices. Raises ImageError."""
    if is_array(source) or isinstance(source, Image.Image):
        width, height = open_image(source).size
        return Size(height, width)
    data, name = read(source), describe(source)
    header = jpeg.read_header(data)
    if header is not None and header.height and header.width and header.height * header.width <= MAX_PIXELS // 2:
        return Size(header.width, header.height) if header.orientation > 4 else Size(header.height, header.width)
    with errors_of(name, _EXPECTED), quiet():
        found = _surveyed(data, name, MAX_PIXELS)
        turned = found.header().getexif().get(ExifTags.Base.Orientation, 1) in (5, 6, 7, 8)
        return Size(found.width, found.height) if turned else Size(found.height, found.width)


def _open_bytes(data: bytes, name: str, max_pixels: int) -> Image.Image:
    with errors_of(name, _EXPECTED), quiet():
        return to_rgb(_surveyed(data, name, max_pixels).load())


def _surveyed(data: bytes, name: str, max_pixels: int) -> Survey:
    if not data:
        raise ImageError(f"{name} is empty, expected a picture ({', '.join(FORMATS)})")
    found = survey(data)
    check_bounds(found, name, max_pixels)
    return found


def _check_size(image: Image.Image, name: str, max_pixels: int) -> None:
    width, height = image.size
    if height < 1 or width < 1:
        raise ImageError(f"{name} is {height}x{width} pixels, expected at least one")
    check_pixels(height, width, name, max_pixels)
