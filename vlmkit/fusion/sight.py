"""Who looks at what: from the ranges that a batch states to the mask of cross-attention, without reading back from the device."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlmkit.features import Grid, View, tiles_together


class Owners(NamedTuple):
    """Which picture each visual token is of."""

    tokens: Tensor
    """(T,): for each visual token one that is of the same picture and that a batch can refer to."""
    referred: int
    """How many a batch can refer to: the first ones, each its own."""


class Sight(NamedTuple):
    """What every cross-attention layer of one forward is given."""

    tokens: Tensor | None
    """Visual tokens (T, D); None where keys and values are kept from a forward before, or where there are none at all."""
    mask: Tensor | None
    """(B * S, T): which visual tokens a token attends to, at least one each; None where there are none at all."""
    attends: Tensor
    """(B, S): whether anything of that attention reaches the token."""
    feeds: Tensor
    """(B, S): whether anything of the layer's MLP does."""
    owners: Owners | None = None
    """Of the visual tokens, to be kept with their keys and values."""
    standing: Any = None
    """The layers themselves, by where they stand."""


def sees(visible: Tensor) -> Tensor:
    """(B, S): whether a token looks at any image. visible: (B, S, 2)."""
    return visible[..., 1] > visible[..., 0]


def sample_sees(visible: Tensor) -> Tensor:
    """(B, S): whether any token of the same sample does."""
    return visible[..., 1] != visible[..., 0]


def mask_of(visible: Tensor, owners: Owners) -> Tensor:
    """(B * S, T): which visual tokens a token attends to.

    visible (B, S, 2): the first visual token that it looks at and the one behind the last; of a token that looks at no image the other
    way round, the one behind the last and the first of all images of its sample. A token of a sample without images has the mask of one
    that attends to everything, for a softmax over nothing is no number: nothing of it may reach the token.
    """
    low, high = visible.amin(-1).flatten()[:, None], visible.amax(-1).flatten()[:, None]
    mask = (owners.tokens >= low) & (owners.tokens < high)
    count = len(owners.tokens)
    if count > owners.referred:
        behind = torch.arange(count, device=visible.device) >= owners.referred
        mask = mask & ~(sees(visible).flatten()[:, None] & behind)
    return mask | (low == high)


def owners_of(grids: Sequence[Grid], views: Sequence[View], device: torch.device) -> Owners:
    """Of the visual tokens of all grids.

    A batch refers to the tokens of views. Behind those of all views a tower may give what it made of tiles that pictures do not fill,
    picture by picture up to equally many tiles each: their owner is the first token of the picture. Without views nobody looks.
    """
    begins = list(accumulate((grid.tokens for grid in grids), initial=0))
    referred = begins[len(views)] if views else begins[-1]
    owners = list(range(referred))
    if len(grids) > len(views) > 0:
        pictures, blank = tiles_together(views), iter(grids[len(views) :])
        for tiles in pictures:
            for _ in range(len(grids) // len(pictures) - len(tiles)):
                owners += [begins[tiles.start]] * next(blank).tokens
    return Owners(torch.tensor(owners).to(device, non_blocking=True), referred)
