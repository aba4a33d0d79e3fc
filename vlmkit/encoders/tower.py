"""What all towers share: normalising uint8 patches, and running views of different sizes in one call."""

from __future__ import annotations

from collections import defaultdict

import torch
from torch import Tensor, nn

from vlmkit.encoders.base import Encoder
from vlmkit.features import Features, Grid


class Tower(nn.Module):
    """Base of built encoders. A subclass implements `encode` over views of one size; this class groups views by grid,
    so that a view's features do not depend on its neighbours.

    Buckets of equal grids are as fast as anything on a CPU (a packed or padded batch is slower there) and need no mask.
    """

    def __init__(self, spec: Encoder) -> None:
        super().__init__()
        self.spec = spec

    def encode(self, images: Tensor, grid: Grid) -> Tensor:
        """Normalised images (V, 3, rows * p, columns * p) of one grid -> (V, tokens, D_v)."""
        raise NotImplementedError

    @property
    def dtype(self) -> torch.dtype:
        return next(self.parameters()).dtype

    def forward(self, pixel_values: Tensor, grids: Tensor | tuple[Grid, ...]) -> Features:
        """(N, 3*p*p) patches, each laid out (channel, row, column), and (V, 3) grids -> features of all views.

        uint8 patches are raw pixels and are normalised here; floating ones are taken as normalised already. Raises
        GridError for a grid that the encoder cannot take and ValueError where patches and grids do not add up.
        """
        views = grids if isinstance(grids, tuple) else tuple(Grid(*row) for row in grids.tolist())
        patches = sum(grid.tokens for grid in views)
        if patches != pixel_values.shape[0]:
            raise ValueError(f"grids {', '.join(map(str, views))} hold {patches} patches, but pixel_values has {pixel_values.shape[0]}")
        outs = tuple(self.spec.grid_out(grid) for grid in views)
        normalised = self.normalise(pixel_values)
        pieces = normalised.split([grid.tokens for grid in views])
        buckets: defaultdict[Grid, list[int]] = defaultdict(list)
        for index, grid in enumerate(views):
            buckets[grid].append(index)
        features: list[Tensor] = [normalised] * len(views)
        for grid, members in buckets.items():
            images = torch.stack([unpatchify(pieces[index], grid, self.spec.patch_size) for index in members])
            for index, tokens in zip(members, self.encode(images, grid), strict=True):
                features[index] = tokens
        if not features:
            return Features(normalised.new_zeros(0, self.spec.dim_out), ())
        return Features(torch.cat(features), outs)

    def normalise(self, pixel_values: Tensor) -> Tensor:
        """(value / 255 - mean) / std as one multiply-add over uint8 patches, in float32; then the tower's dtype."""
        if pixel_values.is_floating_point():
            return pixel_values.to(self.dtype)
        mean = torch.tensor(self.spec.mean, device=pixel_values.device)
        std = torch.tensor(self.spec.std, device=pixel_values.device)
        each = self.spec.patch_size**2
        scale = (1 / (255 * std)).repeat_interleave(each)
        shift = (-mean / std).repeat_interleave(each)
        return torch.addcmul(shift, pixel_values.float(), scale).to(self.dtype)


def unpatchify(patches: Tensor, grid: Grid, patch: int) -> Tensor:
    """(rows * columns, 3*p*p) -> the image (3, rows * p, columns * p) they were cut from."""
    cells = patches.view(grid.rows, grid.columns, 3, patch, patch)
    return cells.permute(2, 0, 3, 1, 4).reshape(3, grid.rows * patch, grid.columns * patch)
