"""What a model sees of one photograph: the way of an image up to the encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmkit.architecture import Architecture
from vlmkit.features import Grid
from vlmkit.layout.pieces import ImageTokens, Visual
from vlmkit.preprocess.geometry import ImagePlan, Size
from vlmkit.preprocess.images import decode
from vlmkit.preprocess.pixels import render

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Sight:
    """What a model sees of one image: pixels of every view in the order of the plan, and their grids."""

    architecture: Architecture
    photo: Pixels
    tokens: ImageTokens
    views: tuple[Pixels, ...]
    patches: tuple[Grid, ...]

    @property
    def plan(self) -> ImagePlan:
        return self.tokens.plan


def placed(architecture: Architecture, tokens: ImageTokens) -> NDArray[np.bool_]:
    """Of each visual token of an image, as the connector returns them, whether the layout gives it a place, or it is looked at."""
    if architecture.layout.looked_at:
        return np.ones(tokens.count, bool)
    found = np.zeros(tokens.count, bool)
    for piece in architecture.layout.pieces(tokens):
        if isinstance(piece, Visual):
            found[piece.start : piece.start + piece.length] = True
    return found


def see(image: Any, architecture: Architecture) -> Sight:
    """Open, plan and render an image as the processor does. Raises ImageError, ImageSizeError, GridError."""
    photo = decode(image)
    plan = architecture.plan(Size(*photo.shape[:2]))
    patch, policy = architecture.encoder.patch_size, architecture.policy
    tokens = architecture.image_tokens(plan)
    values, _ = render(photo, plan, patch=patch, resample=policy.resample, antialias=policy.antialias)
    grids = plan.grids(patch)
    ends = np.cumsum([grid.tokens for grid in grids])
    views = [unpatchify(part, grid, patch) for part, grid in zip(np.split(values.numpy(), ends[:-1]), grids, strict=True)]
    return Sight(architecture, photo, tokens, tuple(views), grids)


def unpatchify(values: Pixels, grid: Grid, patch: int) -> Pixels:
    """(rows * columns, 3*p*p) -> (rows * p, columns * p, 3)."""
    cells = values.reshape(grid.rows, grid.columns, 3, patch, patch)
    return cells.transpose(0, 3, 1, 4, 2).reshape(grid.rows * patch, grid.columns * patch, 3)
