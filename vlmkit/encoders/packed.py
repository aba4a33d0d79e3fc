"""Towers that take views of all sizes in one pass: every block is called once, and attention stays within a view."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vlmkit.encoders.segments import Segments, segments_of
from vlmkit.encoders.tower import Tower
from vlmkit.features import Grid, View

Block = Callable[..., Any]
"""A module, or one with some of its arguments given."""


class PackedTower(Tower):
    """A subclass says how patches become tokens (`embed`), which positions a grid has (`positions`), what stands between tokens and blocks
    (`before`), and calls its blocks in `run_blocks`, mostly by `selected`.

        patches -> embed -> [class | patches] + positions, a view after the other -> before -> blocks 1..layer -> norm -> drop class
    """

    _gradient_checkpointing_func: Callable[..., Any] = partial(checkpoint, use_reentrant=False)
    prefix: int = 0
    """Tokens that stand before the patches of each view."""
    prefix_dropped: int = 0
    """Tokens before the patches that are left out of the features."""
    prefixes: tuple[int, ...] | None = None
    """Of each view, how many patches are seen in both directions, where an objective has later ones look back alone."""

    def embed(self, patches: Tensor) -> Tensor:
        """Normalised patches (N, 3*t*p*p) -> (N, D)."""
        raise NotImplementedError

    def prefix_tokens(self) -> Tensor:
        """What stands before the patches of each view: (prefix, D)."""
        raise NotImplementedError

    def positions(self, grid: Grid) -> Tensor | None:
        """What is added to the tokens of one view, (prefix + n, D); None where positions come in otherwise."""
        return None

    def before(self, tokens: Tensor) -> Tensor:
        """What stands between tokens and blocks: (V, n, D) or (1, N, D), unchanged in shape."""
        return tokens

    def run_blocks(self, tokens: Tensor, segments: Segments, views: tuple[View, ...]) -> Tensor:
        """Tokens (V, n, D) or (1, N, D) -> features of the same shape but for their width, those before the patches included."""
        raise NotImplementedError

    def encode(self, patches: Tensor, views: tuple[View, ...]) -> Tensor:
        segments = segments_of(views, self.prefix, self.prefixes)
        tokens = self.run_blocks(self.before(self.tokens(patches, views, segments)), segments, views)
        if not self.prefix_dropped:
            return tokens.flatten(0, 1)
        if segments.equal:
            return tokens[:, self.prefix_dropped :].flatten(0, 1)
        return torch.cat([view[self.prefix_dropped :] for view in tokens[0].split(segments.lengths)])  # type: ignore[no-untyped-call]

    def tokens(self, patches: Tensor, views: tuple[View, ...], segments: Segments) -> Tensor:
        """Patches (N, 3*t*p*p) -> tokens with their positions, (V, prefix + n, D) or (1, N + V * prefix, D)."""
        return in_a_row(self.embed(patches), views, segments, self.positions, self.prefix_tokens() if self.prefix else None)

    def run(self, block: Block, tokens: Tensor, *arguments: Any) -> Tensor:
        """One block, recomputed in the backward pass where gradient checkpointing is on."""
        if self.gradient_checkpointing and self.training and torch.is_grad_enabled():
            recomputed: Tensor = self._gradient_checkpointing_func(block, tokens, *arguments)
            return recomputed
        out: Tensor = block(tokens, *arguments)
        return out

    def selected(self, blocks: Iterable[Block], tokens: Tensor, norm: nn.Module | None, *arguments: Any) -> Tensor:
        """Run the blocks and join the layers that the spec selects: (.., D) -> (.., D_v). A norm is called once, over all of them."""
        depths = self.spec.depths
        states = {0: tokens}
        for depth, block in zip(range(1, 1 + max(depths)), blocks, strict=False):
            tokens = self.run(block, tokens, *arguments)
            if depth in depths:
                states[depth] = tokens
        chosen = [states[depth] for depth in depths]
        if len(chosen) == 1:
            return chosen[0] if norm is None else norm(chosen[0])
        return torch.cat(chosen, dim=-1) if norm is None else norm(torch.stack(chosen, dim=-2)).flatten(-2)


def in_a_row(
    tokens: Tensor, views: tuple[View, ...], segments: Segments, positions: Callable[[Grid], Tensor | None], prefix: Tensor | None
) -> Tensor:
    """Patches' tokens (N, D), `prefix` (c, D) before those of each view, and the positions (c + n, D) of each view's grid ->
    (V, c + n, D), or (1, N + V * c, D) of different views. Positions are made once for each grid that occurs."""
    tables = {grid: positions(grid) for grid in dict.fromkeys(view.grid for view in views)}
    of_views = [table for view in views if (table := tables[view.grid]) is not None]
    if segments.equal:
        tokens = tokens.view(len(views), -1, tokens.shape[-1])
        if prefix is not None:
            tokens = torch.cat([prefix.expand(len(views), -1, -1), tokens], dim=1)
        return tokens + of_views[0] if of_views else tokens
    if prefix is not None:
        pieces = tokens.split([view.grid.tokens for view in views])  # type: ignore[no-untyped-call]
        tokens = torch.cat([part for piece in pieces for part in (prefix, piece)])
    return (tokens + torch.cat(of_views) if of_views else tokens)[None]
