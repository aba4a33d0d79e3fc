"""What all towers share: what a batch gives them is checked, and uint8 patches are normalised."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from vlmkit.features import Features, Grid, View
from vlmkit.views import views_of

if TYPE_CHECKING:
    from vlmkit.encoders.base import Encoder


class Tower(nn.Module):
    """Base of built encoders. A subclass implements `encode` over all views of a batch.

    Each of its blocks is called once a forward, whatever the sizes of views: where weights are sharded, ranks stay in step only so. It
    owns every parameter that it reads, directly or through a submodule that it calls: ZeRO-3, FSDP and offloading bring a module's
    parameters when that module is called. It keeps no buffer outside the state dict, for whoever builds on the meta device and fills
    parameters and persistent buffers would lose it.
    """

    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass. transformers' switch for a whole model (vlmkit.recompute) finds and sets it."""

    def __init__(self, spec: Encoder) -> None:
        super().__init__()
        self.spec: Any = spec

    def encode(self, patches: Tensor, views: tuple[View, ...]) -> Tensor:
        """Normalised patches (N, 3*t*p*p) of all views, one view after the other -> (M, D_v)."""
        raise NotImplementedError

    def beside(self, views: tuple[View, ...]) -> tuple[Grid, ...]:
        """Grids of features that `encode` gives behind those of all views, and to which no batch refers."""
        return ()

    def unused(self) -> Iterator[nn.Module]:
        """Modules that are kept for the sake of the checkpoint alone: no feature depends on them."""
        return iter(())

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        self.gradient_checkpointing = enabled

    @property
    def dtype(self) -> torch.dtype:
        """The weights'; float32 for an encoder that has none."""
        return next((parameter.dtype for parameter in self.parameters()), torch.float32)

    def forward(self, pixel_values: Tensor, views: Tensor | tuple[View, ...] | tuple[Grid, ...]) -> Features:
        """(N, 3*t*p*p) patches, each laid out (channel, frame, row, column), and their views, or grids (V, 3) -> features of all views.

        uint8 patches are raw pixels and are normalised here; floating ones are taken as normalised already. Raises
        GridError for a grid that the encoder cannot take and ValueError where patches and grids do not add up, or
        patches are of another size than the encoder's.
        """
        of = views_of(views) if isinstance(views, Tensor) else tuple(view if isinstance(view, View) else View(view) for view in views)
        count = sum(view.grid.tokens for view in of)
        if count != pixel_values.shape[0]:
            grids = ", ".join(str(view.grid) for view in of)
            raise ValueError(f"grids {grids} hold {count} patches, but pixel_values has {pixel_values.shape[0]}")
        values = self.spec.values
        if pixel_values.shape[1:] != (values,):
            raise ValueError(
                f"patches hold {_values(pixel_values.shape[1:].numel())}, encoder {self.spec.kind!r} takes "
                f"{_values(values, self.spec.patch_frames)}; "
                "was the batch made by this model's processor?"
            )
        outs = tuple(self.spec.grid_out(view.grid) for view in of)
        normalised = self.normalise(pixel_values)
        if not of:
            return Features(normalised.new_zeros(0, self.spec.dim_out), ())
        return Features(self.encode(normalised, of), outs + self.beside(of)).checked()

    def normalise(self, pixel_values: Tensor) -> Tensor:
        """(value / 255 - mean) / std as one multiply-add over uint8 patches, in float32; then the tower's dtype."""
        if pixel_values.is_floating_point():
            return pixel_values.to(self.dtype)
        each = self.spec.values // 3
        mean, std = (torch.tensor(value, device="cpu") for value in (self.spec.mean, self.spec.std))
        # Made on the CPU and sent without waiting: a tensor made of numbers on a device would halt the host.
        scale, shift = (
            value.repeat_interleave(each).to(pixel_values.device, non_blocking=True) for value in (1 / (255 * std), -mean / std)
        )
        return torch.addcmul(shift, pixel_values.float(), scale).to(self.dtype)


def _values(count: int, frames: int = 1) -> str:
    """'588 values (14x14x3)', '1176 values (14x14x3 of 2 frames)'"""
    side = math.isqrt(count // (3 * frames))
    deep = f" of {frames} frames" if frames > 1 else ""
    return f"{count} values" + (f" ({side}x{side}x3{deep})" if count == 3 * frames * side**2 else "")
