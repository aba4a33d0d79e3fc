"""Pictures, sizes and a comparison for the tests that hold a policy beside a published image processor."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.photos import photo
from vlmkit.preprocess import Size, render
from vlmkit.preprocess.policies.base import ImagePolicy

Pixels = NDArray[np.uint8]

SIZES = st.one_of(
    st.tuples(st.integers(1, 700), st.integers(1, 700)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.tuples(st.just(1), st.integers(1, 1000)),
    st.tuples(st.integers(1, 30), st.just(50)).map(lambda drawn: (drawn[0], 50 * drawn[0])),
    st.tuples(st.integers(700, 1800), st.integers(700, 1800)),
)
"""Height and width: any shape, tiny ones, lines, 50 to 1, and larger than any view."""
shapes = st.tuples(SIZES, st.booleans()).map(lambda drawn: drawn[0][::-1] if drawn[1] else drawn[0])
geometries = st.tuples(st.integers(1, 5000) | st.integers(1, 100_000), st.integers(1, 5000) | st.integers(1, 100_000))
"""Sizes for what needs no pixels."""


def image(shape: tuple[int, int], noise: bool = False) -> Pixels:
    """A photograph repeated to (height, width), or noise of all 256 values, which is as hard to resample as it gets."""
    height, width = shape
    if noise:
        return np.random.default_rng(height * 10_000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)
    pixels = photo("china")
    return np.ascontiguousarray(pixels[np.arange(height)[:, None] % len(pixels), np.arange(width) % pixels.shape[1]])


def seen(policy: ImagePolicy, pixels: Pixels) -> list[Pixels]:
    """The views of a policy, (height, width, 3) each."""
    plan = policy.plan(Size(*pixels.shape[:2]))
    patches, grids = render(pixels, plan, patch=1, resample=policy.resample, antialias=policy.antialias)
    sides = [(rows, columns) for _, rows, columns in grids.tolist()]
    ends = np.cumsum([rows * columns for rows, columns in sides])[:-1]
    return [part.reshape(*side, 3) for part, side in zip(np.split(patches.numpy(), ends), sides, strict=True)]


def processed(processor: Any, pixels: Pixels, *, nested: bool = False, **options: Any) -> dict[str, Any]:
    """What a published processor makes of one image, its pixels left as they are between 0 and 255."""
    given = [[pixels]] if nested else pixels
    raw = dict(input_data_format="channels_last", do_rescale=False, do_normalize=False, return_tensors="pt")
    return dict(processor(given, **raw, **options))


def views_of(values: Any) -> list[Pixels]:
    """(V, 3, height, width) of a processor -> (height, width, 3) each."""
    return [np.asarray(view).transpose(1, 2, 0) for view in values]


def difference(ours: list[Pixels], theirs: list[Pixels]) -> int:
    """The greatest difference, 0 to 255, of views whose number, order and sizes have to agree."""
    assert [view.shape for view in ours] == [view.shape for view in theirs]
    return max(int(np.abs(one.astype(int) - other.astype(int)).max()) for one, other in zip(ours, theirs, strict=True))
