"""Towers that take views of one size at a time, for modules that are another library's own."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor

from vlmkit.encoders.tower import Tower
from vlmkit.features import Grid, View
from vlmkit.sharding import is_sharded


class BySizeTower(Tower):
    """A subclass implements `encode_size` over views of one grid. It is called once for each grid that a batch holds.

    Where the weights are sharded, ranks whose batches hold different numbers of grids would call it differently often: they agree on
    the highest number first, and those that have fewer see blank views, whose features count nothing.
    """

    def encode_size(self, images: Tensor, grid: Grid) -> Tensor:
        """Normalised images (V, 3, rows * p, columns * p) of one grid -> (V, tokens, D_v)."""
        raise NotImplementedError

    def encode(self, patches: Tensor, views: tuple[View, ...]) -> Tensor:
        members: defaultdict[Grid, list[int]] = defaultdict(list)
        for number, view in enumerate(views):
            members[view.grid].append(number)
        pieces = patches.split([view.grid.tokens for view in views])  # type: ignore[no-untyped-call]
        side = self.spec.patch_size
        found: list[Tensor] = [patches] * len(views)
        for grid, numbers in members.items():
            images = torch.stack([unpatchify(pieces[number], grid, side) for number in numbers])
            for number, tokens in zip(numbers, self.encode_size(images, grid), strict=True):
                found[number] = tokens
        features = torch.cat(found)
        for _ in range(most_over_ranks(len(members), patches.device) - len(members) if is_sharded(self) else 0):
            blank = self.encode_size(torch.zeros_like(unpatchify(pieces[0], views[0].grid, side))[None], views[0].grid)
            features = features + 0 * blank.sum()
        return features


def most_over_ranks(count: int, device: torch.device) -> int:
    """The highest of the counts that all ranks have."""
    if not torch.distributed.is_initialized():
        return count
    most = torch.tensor(count, device=device)
    torch.distributed.all_reduce(most, torch.distributed.ReduceOp.MAX)
    return int(most)


def unpatchify(patches: Tensor, grid: Grid, patch: int) -> Tensor:
    """(rows * columns, 3*p*p) -> the image (3, rows * p, columns * p) they were cut from."""
    cells = patches.view(grid.rows, grid.columns, 3, patch, patch)
    return cells.permute(2, 0, 3, 1, 4).reshape(3, grid.rows * patch, grid.columns * patch)
