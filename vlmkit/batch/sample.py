"""One sample on its way into a batch: images as towers take them, and conversations that are laid out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import Tensor

from vlmkit.layout.laid_out import Layout, LayoutError
from vlmkit.layout.pieces import ImageTokens


class Pixels(NamedTuple):
    """What one tower sees of one image: patches (N, 3*t*p*p) uint8, and grids (V, 3)."""

    pixel_values: Tensor
    grids: Tensor


@dataclass(frozen=True, slots=True)
class RenderedImage:
    """An image as the encoder takes it: uint8 patches (N, 3*t*p*p), grids (V, 3), and what the layout needs to know."""

    pixel_values: Tensor
    grids: Tensor
    tokens: ImageTokens
    beside: tuple[Pixels, ...] = ()
    """What further towers see of it, one for each that does not see the same patches as one before."""

    def without_pixels(self) -> RenderedImage:
        """What conversations about it are laid out by, once it is encoded."""
        beside = tuple(one._replace(pixel_values=one.pixel_values.new_empty(0)) for one in self.beside)
        return replace(self, pixel_values=self.pixel_values.new_empty(0), beside=beside)


@dataclass(frozen=True, slots=True)
class PreparedSample:
    """Images, and one or several laid-out conversations about them. Each conversation becomes a row of its own; the
    images are encoded once. A span's `image` is the number of one of these images."""

    images: tuple[RenderedImage, ...]
    layouts: tuple[Layout, ...]


def limited(sample: PreparedSample, number: int, max_length: int, truncation: bool, generates: bool = False) -> PreparedSample:
    """The sample in at most `max_length` tokens. Images that no conversation shows any more are not encoded either.

    generates: whether an answer is to be generated at its end. Raises LayoutError for a longer one, naming its `number`, where it may not
    be truncated or nothing would be left.
    """
    if max_length < 1:
        raise LayoutError(f"max_length={max_length}: expected a whole number of tokens from 1 up")
    longest = max(len(layout.ids) for layout in sample.layouts)
    if longest <= max_length:
        return sample
    too_long = f"conversation {number} has {longest} tokens, more than max_length={max_length}"
    if generates:
        raise LayoutError(f"{too_long}; raise it: an answer is to be generated at the end, so that cannot be cut off")
    if not truncation:
        raise LayoutError(f"{too_long}; raise it, or pass truncation=True, which drops the end and whole images")
    layouts = tuple(layout.truncated(max_length) for layout in sample.layouts)
    if not all(layout.ids for layout in layouts):
        raise LayoutError(f"{too_long}, and nothing would be left of it: it begins with an image, which is dropped whole; raise max_length")
    return PreparedSample(sample.images[: max(layout.shown for layout in layouts)], layouts)
