"""Learned embeddings that tell padding from picture, as Molmo has them (arXiv:2409.17146): for patches that show nothing else, and for
those that show some."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.features import View

if TYPE_CHECKING:
    from vlmkit.encoders.clip import Clip

PICTURE, PADDING, SOME = 0, 1, 2
"""What a patch shows."""


class PaddingMarks(nn.Module):
    """`pad_embed` has upstream's name; its rows are added where a patch is PADDING, and where it is SOME."""

    def __init__(self, spec: Clip) -> None:
        super().__init__()
        self.spec = spec
        self.pad_embed = nn.Parameter(torch.zeros(2, spec.dim_out))

    def forward(self, features: Tensor, views: tuple[View, ...]) -> Tensor:
        """(M, D_v), tokens of the views one after the other, those that are kept before their patches included -> the same."""
        shows = torch.cat([functional.pad(state, (self.spec.prefix_kept, 0)) for state in self.states(views)])
        table = functional.pad(self.pad_embed, (0, 0, 1, 0))
        return features + functional.embedding(shows.to(features.device, non_blocking=True), table)

    def states(self, views: tuple[View, ...]) -> list[Tensor]:
        """Of each view (rows * columns,): what is marked of its patches."""
        if self.spec.padding == "own":
            return [shown(view, view, self.spec.patch) for view in views]
        following = (*views[1:], None)
        return [
            shown(view, other, self.spec.patch)
            if other is not None and other.image == view.image
            else torch.full((view.grid.tokens,), SOME, device="cpu")
            for view, other in zip(views, following, strict=True)
        ]


def shown(view: View, padded: View, patch: int) -> Tensor:
    """(rows * columns,) of a view's grid, on the CPU: what the patches of a view that is padded like `padded` show."""
    rows = _along(view.grid.rows, padded.above, padded.grid.rows * patch - padded.below, patch)
    columns = _along(view.grid.columns, padded.left, padded.grid.columns * patch - padded.right, patch)
    most, least = torch.maximum(rows[:, None], columns), torch.minimum(rows[:, None], columns)
    # Beside a row of padding alone nothing counts; else some is some.
    return torch.where((rows[:, None] == PADDING) | (columns == PADDING), PADDING, torch.where(most > least, SOME, most)).flatten()


def _along(count: int, begin: int, end: int, patch: int) -> Tensor:
    """(count,): what patches along one axis show of a picture that begins and ends at these pixels."""
    edges = torch.arange(count + 1, device="cpu") * patch
    before, behind = edges[:-1], edges[1:]
    partly = torch.where((before >= begin) & (behind <= end), PICTURE, SOME)
    return torch.where((behind <= begin) | (before >= end), PADDING, partly)
