"""Colour: a decoded picture of any mode becomes upright 8-bit RGB in sRGB, composited on white."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageCms

from vlmkit.preprocess.bounds import MAX_PROFILE

_BLOCK = 1 << 18
"""Pixels that are converted at once: what is needed on the way stays small, and in the processor's cache."""
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def to_rgb(image: Image.Image) -> Image.Image:
    """The picture in mode RGB; the same object where nothing is to be done. `image` is loaded but not changed.

    Samples wider than 8 bits are rescaled, never clipped:
    - I;16: divided by 257, so that 65535 is white;
    - I (32-bit): values from 0 to 255 are taken as 8-bit, from 0 to 65535 as 16-bit; any others are stretched so that
      the picture's least value is black and its greatest white;
    - F: values from 0 to 1 are multiplied by 255, from 0 to 255 taken as they are, any others stretched likewise; NaN
      and infinity are refused.
    """
    raw_mode = _raw_mode(image)
    image.load()
    turn = _orientation(image)
    span = _span(image) if image.mode in ("I", "F") else None
    width, height = image.size
    rows = max(1, _BLOCK // width)
    if height <= rows:
        picture = _block_to_rgb(image, raw_mode, span)
        picture = picture.transpose(_TURNS[turn]) if turn in _TURNS else picture
    elif image.mode == "RGB" and not image.has_transparency_data and turn not in _TURNS and _transform(image) is None:
        return image
    else:
        picture = Image.new("RGB", (height, width) if turn > 4 else (width, height))
        for top in range(0, height, rows):
            block = _block_to_rgb(image.crop((0, top, width, min(top + rows, height))), raw_mode, span)
            # Where rows go from the bottom, or columns from the right, the first block is the last.
            place = height - top - block.height if turn in (3, 4, 6, 7) else top
            block = block.transpose(_TURNS[turn]) if turn in _TURNS else block
            picture.paste(block, (place, 0) if turn > 4 else (0, place))
    if picture is not image:
        # What was applied must not be applied again by whoever opens the result.
        picture.info = {}
        picture.getexif().clear()
    return picture


def to_array(image: Image.Image) -> NDArray[np.uint8]:
    """A picture of mode RGB as (H, W, 3); a few rows at a time, since Pillow makes two copies on the way."""
    width, height = image.size
    pixels = np.empty((height, width, 3), np.uint8)
    rows = max(1, _BLOCK // width)
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        block = image if height <= rows else image.crop((0, top, width, bottom))
        pixels[top:bottom] = np.frombuffer(block.tobytes(), np.uint8).reshape(bottom - top, width, 3)
    return pixels


def _block_to_rgb(image: Image.Image, raw_mode: str, span: tuple[float, float] | None) -> Image.Image:
    """Some rows of a picture, not yet upright; `image` itself where nothing is to be done."""
    picture, alpha = _split_alpha(image, raw_mode, span)
    transform = _transform(image, picture.mode)
    if transform is not None:
        picture = ImageCms.applyTransform(picture, transform) or picture
    elif picture.mode != "RGB":
        picture = picture.convert("RGB")
    if alpha is not None:
        picture.paste((255, 255, 255), mask=ImageChops.invert(alpha))
    return picture


def _raw_mode(image: Image.Image) -> str:
    """How a PNG stores its samples, known only before it is loaded: Pillow narrows 16-bit RGB to 8 bits."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return arguments if isinstance(arguments, str) else ""


def _split_alpha(image: Image.Image, raw_mode: str, span: tuple[float, float] | None) -> tuple[Image.Image, Image.Image | None]:
    """The picture without transparency, in mode L, RGB or CMYK, and its opacity (L) if it is not opaque everywhere.

    A picture that comes with an opacity is never `image` itself.
    """
    transparent = image.info.get("transparency")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        alpha = Image.fromarray(np.where(values == transparent, np.uint8(0), np.uint8(255))) if isinstance(transparent, int) else None
        return Image.fromarray(narrow16(values) if span is None else _narrow(values, span)), alpha
    if image.has_transparency_data:
        if raw_mode.startswith("RGB;16") and isinstance(transparent, tuple):
            image = image.copy()
            image.info["transparency"] = tuple(value >> 8 for value in transparent)
        if image.mode == "La":
            image = image.convert("LA")
        grey = image.mode in ("1", "L", "LA")
        mode = "LA" if grey else "RGBA"
        wide = image if image.mode == mode else image.convert(mode)
        alpha = wide.getchannel("A")
        return wide.getchannel("L") if grey else wide.convert("RGB"), None if alpha.getextrema() == (255, 255) else alpha
    if image.mode in ("L", "RGB", "CMYK"):
        return image, None
    return image.convert("L" if image.mode == "1" else "RGB"), None


def narrow16(values: NDArray[np.uint16]) -> NDArray[np.uint8]:
    """16-bit samples divided by 257 and rounded: 0 stays 0, 65535 becomes 255."""
    table = ((np.arange(65536, dtype=np.uint32) + 128) // 257).astype(np.uint8)
    return table[values]


def _span(image: Image.Image) -> tuple[float, float]:
    """What becomes black and what white in a picture of 32-bit or floating samples."""
    width, height = image.size
    rows = max(1, _BLOCK // width)
    blocks = (np.asarray(image.crop((0, top, width, min(top + rows, height)))) for top in range(0, height, rows))
    ends = [(float(block.min()), float(block.max())) for block in blocks]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    if not np.isfinite(ends).all():
        raise ValueError("not finite")
    usual = (1.0, 255.0) if image.mode == "F" else (255.0, 65535.0)
    return next(((0.0, bound) for bound in usual if low >= 0 and high <= bound), (low, high))


def _narrow(values: NDArray[Any], span: tuple[float, float]) -> NDArray[np.uint8]:
    black, white = span
    scaled = values.astype(np.float64)
    scaled -= black
    scaled *= 255
    scaled /= (white - black) or 1.0
    return np.rint(scaled, out=scaled).astype(np.uint8)


def _transform(image: Image.Image, mode: str = "RGB") -> ImageCms.ImageCmsTransform | None:
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and 0 < len(profile) <= MAX_PROFILE:
        return srgb_transform(profile, mode)
    return None


@lru_cache(maxsize=16)
def srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From the profile's colours to sRGB; None where the profile is broken, of another mode, or sRGB in all but name."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, ValueError, TypeError, OSError):
        return None
    if mode != "RGB":
        return transform
    probe = np.stack(np.meshgrid(*[np.arange(0, 256, 15, dtype=np.uint8)] * 3), axis=-1).reshape(18 * 18, 18, 3)
    moved = np.asarray(ImageCms.applyTransform(Image.fromarray(probe), transform))
    return None if np.abs(moved.astype(int) - probe).max() <= 2 else transform


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 where it is missing or its block is broken."""
    try:
        value = image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:
        # The block is bytes from the file, and its reader raises nearly anything on bad ones.
        return 1
    return value if isinstance(value, int) else 1
