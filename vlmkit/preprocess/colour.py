"""Colour: a decoded picture of any mode becomes upright 8-bit RGB in sRGB, composited on white."""

from __future__ import annotations

import io
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageChops, ImageCms

_MAX_PROFILE = 1 << 23
"""Bytes of a colour profile that is still looked at; those of printing presses have about three million."""
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
    picture, alpha = _split_alpha(image, raw_mode)
    picture = _to_srgb(picture, image.info.get("icc_profile"))
    if alpha is not None:
        picture.paste((255, 255, 255), mask=ImageChops.invert(alpha))
    turn = _TURNS.get(_orientation(image))
    if turn is not None:
        picture = picture.transpose(turn)
    if picture is not image:
        # What was applied must not be applied again by whoever opens the result.
        picture.info = {}
        picture.getexif().clear()
    return picture


def _raw_mode(image: Image.Image) -> str:
    """How a PNG stores its samples, known only before it is loaded: Pillow narrows 16-bit RGB to 8 bits."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    return arguments if isinstance(arguments, str) else ""


def _split_alpha(image: Image.Image, raw_mode: str) -> tuple[Image.Image, Image.Image | None]:
    """The picture without transparency, in mode L, RGB or CMYK, and its opacity (L) if it is not opaque everywhere.

    A picture that comes with an opacity is never `image` itself.
    """
    transparent = image.info.get("transparency")
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image)
        alpha = Image.fromarray(np.where(values == transparent, np.uint8(0), np.uint8(255))) if isinstance(transparent, int) else None
        return Image.fromarray(_narrow(values)), alpha
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


def _narrow(values: NDArray[Any]) -> NDArray[np.uint8]:
    if values.dtype.kind == "u":
        return narrow16(values)
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("not finite")
    usual = (1.0, 255.0) if values.dtype.kind == "f" else (255.0, 65535.0)
    black, white = next(((0.0, bound) for bound in usual if low >= 0 and high <= bound), (low, high))
    narrow = np.empty(values.shape, np.uint8)
    for row, wide in enumerate(values):  # a row at a time, so that the wide copy stays small
        narrow[row] = np.rint((wide.astype(np.float64) - black) * 255 / ((white - black) or 1.0))
    return narrow


def _to_srgb(image: Image.Image, profile: Any) -> Image.Image:
    if isinstance(profile, bytes) and 0 < len(profile) <= _MAX_PROFILE:
        transform = srgb_transform(profile, image.mode)
        if transform is not None:
            return ImageCms.applyTransform(image, transform) or image
    return image if image.mode == "RGB" else image.convert("RGB")


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
