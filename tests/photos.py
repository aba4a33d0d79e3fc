"""Real photographs and scans that come with scikit-image and scikit-learn; no network."""

from __future__ import annotations

import io
from functools import cache
from typing import Any

import numpy as np
import skimage.data
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_sample_image

NAMES = ("astronaut", "coffee", "chelsea", "rocket", "page", "text", "china", "flower")


@cache
def photo(name: str) -> NDArray[np.uint8]:
    """(H, W, 3) of uint8; the two scans of text are grey."""
    pixels = load_sample_image(f"{name}.jpg") if name in ("china", "flower") else getattr(skimage.data, name)()
    pixels = np.ascontiguousarray(np.repeat(pixels[:, :, None], 3, axis=2) if pixels.ndim == 2 else pixels)
    pixels.flags.writeable = False
    return pixels


def picture(name: str = "chelsea", size: tuple[int, int] | None = None) -> Image.Image:
    """The photograph as a PIL image, resized to (height, width) if asked."""
    image = Image.fromarray(photo(name))
    return image if size is None else image.resize((size[1], size[0]), Image.Resampling.BICUBIC)


def encoded(image: Image.Image, format: str = "JPEG", **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def difference(a: Any, b: Any) -> int:
    """The greatest difference of two pictures of one shape."""
    first, second = np.asarray(a).astype(int), np.asarray(b).astype(int)
    assert first.shape == second.shape
    return int(np.abs(first - second).max())
