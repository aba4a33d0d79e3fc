"""Pictures that are handed over as numpy arrays or torch tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmkit.preprocess.colour import narrow16, to_rgb
from vlmkit.preprocess.image_errors import ImageError, describe, is_tensor

Pixels = NDArray[np.uint8]
_BANDS = (1, 3, 4)
"""Channels that a picture may have: grey, RGB, RGB with opacity."""


def from_array(source: Any, max_pixels: int) -> Pixels:
    """A picture (H, W, 3) of uint8 from an array or tensor; one that is that already is not copied.

    Raises ImageError."""
    name = describe(source)
    array = _channels_last(source, name) if is_tensor(source) else np.asarray(source)
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _BANDS):
        hint = "; move the channels last with array.transpose(1, 2, 0)" if array.ndim == 3 and array.shape[0] in _BANDS else ""
        hint = "; pass one picture at a time" if array.ndim == 4 else hint
        raise ImageError(f"{name} is no picture, expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}")
    if array.size == 0:
        raise ImageError(f"{name} is empty, expected at least one pixel")
    if array.shape[0] * array.shape[1] > max_pixels:
        raise ImageError(f"{name} has more than {max_pixels} pixels; make it smaller, or pass a larger max_pixels")
    pixels = _to_uint8(array, name)
    if pixels.ndim == 2:
        pixels = pixels[:, :, None]
    if pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    if pixels.shape[2] == 4:
        pixels = np.array(to_rgb(Image.fromarray(np.ascontiguousarray(pixels))))
    return np.ascontiguousarray(pixels)


def _channels_last(tensor: Any, name: str) -> NDArray[Any]:
    if tensor.ndim == 3:
        first, last = tensor.shape[0] in _BANDS, tensor.shape[2] in _BANDS
        if first and last:
            raise ImageError(f"{name} may be channels first or last; pass a numpy array, which is taken as (H, W, channels)")
        if first:
            tensor = tensor.permute(1, 2, 0)
    try:
        tensor = tensor.detach().cpu()
        array: NDArray[Any] = (tensor.float() if tensor.is_floating_point() else tensor).numpy()
    except (TypeError, RuntimeError, NotImplementedError):
        raise ImageError(
            f"{name} has no values that can be read, expected a dense tensor of uint8, uint16, bool or floating type"
        ) from None
    return array


def _to_uint8(array: NDArray[Any], name: str) -> Pixels:
    if array.dtype == np.uint8:
        plain: Pixels = array
        return plain
    if array.dtype == np.bool_:
        return np.where(array, np.uint8(255), np.uint8(0))
    if array.dtype.newbyteorder("=") == np.uint16:
        return narrow16(array)
    if np.issubdtype(array.dtype, np.floating):
        low, high = float(array.min()), float(array.max())
        # A resampled picture may overshoot by a rounding error; anything more is another range.
        if not (low >= -1e-3 and high <= 1 + 1e-3):
            raise ImageError(f"{name} holds {low:g} to {high:g}, expected 0 to 1 for floating values; divide by 255, or convert to uint8")
        scaled: Pixels = np.rint(np.clip(array, 0, 1) * 255).astype(np.uint8)
        return scaled
    raise ImageError(f"{name} has an unexpected type, expected uint8, uint16, bool or floating from 0 to 1; use array.astype('uint8')")
