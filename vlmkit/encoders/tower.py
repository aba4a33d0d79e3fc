"""What all towers share: normalising uint8 patches, and running views of different sizes in one call."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlmkit.encoders.base import BlockEncoder, Encoder
from vlmkit.features import Features, Grid
from vlmkit.spec import SpecError

Block = Callable[..., Any]
"""A module, or one with some of its arguments given."""


class Tower(nn.Module):
    """Base of built encoders. A subclass implements `encode` over views of one size; this class groups views by grid,
    so that a view's features do not depend on its neighbours.

    Buckets of equal grids are as fast as anything on a CPU (a packed or padded batch is slower there) and need no mask.

    A subclass owns every parameter that it reads, directly or through a submodule that it calls: ZeRO-3 and FSDP gather
    a module's parameters when that module is called. It keeps no buffer outside the state dict, for whoever builds on the
    meta device and fills parameters and persistent buffers would lose it.
    """

    gradient_checkpointing: bool = False
    """Recompute blocks in the backward pass. transformers' `gradient_checkpointing_enable` finds and sets it."""
    _gradient_checkpointing_func: Callable[..., Any] = partial(checkpoint, use_reentrant=False)

    def __init__(self, spec: Encoder) -> None:
        super().__init__()
        self.spec = spec

    def encode(self, images: Tensor, grid: Grid) -> Tensor:
        """Normalised images (V, 3, rows * p, columns * p) of one grid -> (V, tokens, D_v)."""
        raise NotImplementedError

    def set_gradient_checkpointing(self, enabled: bool) -> None:
        self.gradient_checkpointing = enabled

    @property
    def dtype(self) -> torch.dtype:
        """The weights'; float32 for an encoder that has none."""
        return next((parameter.dtype for parameter in self.parameters()), torch.float32)

    def forward(self, pixel_values: Tensor, grids: Tensor | tuple[Grid, ...]) -> Features:
        """(N, 3*p*p) patches, each laid out (channel, row, column), and (V, 3) grids -> features of all views.

        uint8 patches are raw pixels and are normalised here; floating ones are taken as normalised already. Raises
        GridError for a grid that the encoder cannot take and ValueError where patches and grids do not add up, or
        patches are of another size than the encoder's.
        """
        views = (
            tuple(getattr(view, "grid", view) for view in grids)
            if isinstance(grids, tuple)
            else tuple(Grid(*row) for row in grids.tolist())
        )
        patches = sum(grid.tokens for grid in views)
        if patches != pixel_values.shape[0]:
            raise ValueError(f"grids {', '.join(map(str, views))} hold {patches} patches, but pixel_values has {pixel_values.shape[0]}")
        side = self.spec.patch_size
        if pixel_values.shape[1:] != (3 * side**2,):
            raise ValueError(
                f"patches hold {_values(pixel_values.shape[1:].numel())}, encoder {self.spec.kind!r} takes {_values(3 * side**2)}; "
                "was the batch made by this model's processor?"
            )
        outs = tuple(self.spec.grid_out(grid) for grid in views)
        normalised = self.normalise(pixel_values)
        pieces = torch.split(normalised, [grid.tokens for grid in views])
        buckets: defaultdict[Grid, list[int]] = defaultdict(list)
        for index, grid in enumerate(views):
            buckets[grid].append(index)
        features: list[Tensor] = [normalised] * len(views)
        for grid, members in buckets.items():
            images = torch.stack([unpatchify(pieces[index], grid, side) for index in members])
            for index, tokens in zip(members, self.encode(images, grid), strict=True):
                features[index] = tokens
        if not features:
            return Features(normalised.new_zeros(0, self.spec.dim_out), ())
        return Features(torch.cat(features), outs).checked()

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


class ViTTower(Tower):
    """A tower of a vision transformer whose blocks vlmkit calls one by one."""

    def __init__(self, spec: BlockEncoder) -> None:
        super().__init__(spec)
        self.prefix_dropped = 0
        """Tokens before the patches that are left out of the features."""

    def run(self, block: Block, tokens: Tensor) -> Tensor:
        """One block, (V, n, D) -> (V, n, D), recomputed in the backward pass where gradient checkpointing is on."""
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            recomputed: Tensor = self._gradient_checkpointing_func(block, tokens)
            return recomputed
        out: Tensor = block(tokens)
        return out

    def selected(self, blocks: Iterable[Block], tokens: Tensor, norm: nn.Module | None) -> Tensor:
        """Run the blocks and join the layers that the spec selects: (V, n, D) -> (V, n - dropped, D_v)."""
        assert isinstance(self.spec, BlockEncoder)
        states = {}
        for depth, block in enumerate(blocks, start=1):
            tokens = self.run(block, tokens)
            if depth in self.spec.depths:
                states[depth] = (tokens if norm is None else norm(tokens))[:, self.prefix_dropped :]
            if depth == max(self.spec.depths):
                break
        chosen = [states[depth] for depth in self.spec.depths]
        return chosen[0] if len(chosen) == 1 else torch.cat(chosen, dim=-1)


def _values(count: int) -> str:
    """'588 values (14x14x3)'"""
    side = math.isqrt(count // 3)
    return f"{count} values" + (f" ({side}x{side}x3)" if count == 3 * side**2 else "")


def unpatchify(patches: Tensor, grid: Grid, patch: int) -> Tensor:
    """(rows * columns, 3*p*p) -> the image (3, rows * p, columns * p) they were cut from."""
    cells = patches.view(grid.rows, grid.columns, 3, patch, patch)
    return cells.permute(2, 0, 3, 1, 4).reshape(3, grid.rows * patch, grid.columns * patch)


def fill(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Copy weights into a module, in the module's dtype and on its device (a module on meta takes them as they are).

    Raises SpecError listing every name that is missing, unknown or of another shape.
    """
    own = module.state_dict()
    problems = [f"missing {name} {tuple(own[name].shape)}" for name in own if name not in weights]
    problems += [f"unknown {name} {tuple(weights[name].shape)}" for name in weights if name not in own]
    problems += [
        f"{name} is {tuple(weights[name].shape)}, the tower has {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    ]
    if problems:
        shown = "; ".join(problems[:20]) + (f"; and {len(problems) - 20} more" if len(problems) > 20 else "")
        raise SpecError(f"the weights of {source} do not fit the tower: {shown}")
    on_meta = any(value.is_meta for value in own.values())
    module.load_state_dict({name: value.to(own[name].dtype) for name, value in weights.items()}, assign=on_meta)
