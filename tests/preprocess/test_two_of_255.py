"""Why torch's resampling, which is vlmkit's, and PIL's differ by up to 2 of 255: both are here, in whole numbers, to the last bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from vlmkit.preprocess import Size
from vlmkit.preprocess.pixels import _resize

Pixels = NDArray[np.uint8]


def weights(length: int, wanted: int) -> list[tuple[int, NDArray[np.float64]]]:
    """Keys' bicubic filter with a = -0.5, widened when shrinking: first pixel and weights of each output."""
    scale = length / wanted
    wide = max(scale, 1.0)
    found = []
    for place in range(wanted):
        centre = (place + 0.5) * scale
        first, behind = max(int(centre - 2 * wide + 0.5), 0), min(int(centre + 2 * wide + 0.5), length)
        x = np.abs((np.arange(first, behind) + 0.5 - centre) / wide)
        values = np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, np.where(x < 2, (((x - 5) * x + 8) * x - 4) * -0.5, 0))
        found.append((first, values / values.sum()))
    return found


def passed(pixels: Pixels, wanted: int, bits: int) -> Pixels:
    """One pass along the first side, rounded to bytes. Weights are whole numbers of at most so many bits and a sign, or of 22."""
    if len(pixels) == wanted:
        return pixels
    filters = weights(len(pixels), wanted)
    largest, shift = max(float(values.max()) for _, values in filters), 22
    while shift > 0 and int(0.5 + largest * (1 << shift)) >= 1 << bits:
        shift -= 1
    out = np.empty((wanted, *pixels.shape[1:]), np.uint8)
    for place, (first, values) in enumerate(filters):
        whole = np.trunc(values * (1 << shift) + np.where(values < 0, -0.5, 0.5)).astype(np.int64)
        summed = np.tensordot(whole, pixels[first : first + len(whole)].astype(np.int64), 1)
        out[place] = np.clip((summed + (1 << shift - 1)) >> shift, 0, 255)
    return out


def resized(pixels: Pixels, side: int, bits: int, *, down_first: bool) -> Pixels:
    if down_first:
        return passed(passed(pixels, side, bits).swapaxes(0, 1), side, bits).swapaxes(0, 1)
    return passed(passed(pixels.swapaxes(0, 1), side, bits).swapaxes(0, 1), side, bits)


@pytest.mark.parametrize(("height", "width"), [(60, 45), (45, 60), (100, 101), (30, 20), (20, 90), (96, 48)])
def test_weights_of_16_bits_are_torchs_and_of_22_bits_pils(height: int, width: int) -> None:
    """Both pass over one side and then the other, and round in between. Pillow 13 begins with the side after which less work is left;
    torch always goes across first."""
    pixels = np.random.default_rng(height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    ours = _resize(torch.from_numpy(pixels), Size(48, 48), "bicubic", antialias=True).numpy()
    theirs = np.asarray(Image.fromarray(pixels).resize((48, 48), Image.Resampling.BICUBIC))
    assert np.array_equal(ours, resized(pixels, 48, 15, down_first=False))
    assert any(np.array_equal(theirs, resized(pixels, 48, 31, down_first=first)) for first in (False, True))


def test_of_smooth_pictures_they_differ_by_2_and_of_noise_the_order_makes_more() -> None:
    """Across first or down first, noise is cut off at 0 and 255 in between: measured up to 16."""
    noise = np.random.default_rng(60).integers(0, 256, (60, 45, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(noise[:6, :6]).resize((150, 110), Image.Resampling.BICUBIC))
    for pixels, within in ((smooth, 2), (noise, 16)):
        ours = resized(pixels, 48, 15, down_first=False).astype(int)
        apart = [np.abs(ours - resized(pixels, 48, 31, down_first=first)).max() for first in (False, True)]
        assert 0 < apart[0] <= 2
        assert 0 < apart[1] <= within
