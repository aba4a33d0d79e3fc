"""Embeddings of a layout that no token and no picture has: line breaks between rows of visual tokens, say."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class LearnedEmbeddings(nn.Module):
    """One vector of width D_lm for each name of `TokenLayout.learned`.

    A module of its own that is called, and not parameters that somebody reads: where weights are sharded, or lie elsewhere until they
    are needed, it is the call that brings them.
    """

    def __init__(self, names: tuple[str, ...], dim: int) -> None:
        super().__init__()
        self.names = names
        for name in names:
            self.register_parameter(name, nn.Parameter(torch.randn(dim) * dim**-0.5))

    def forward(self) -> Tensor:
        """(names, D_lm), in the order of the names."""
        return torch.stack([self.get_parameter(name) for name in self.names])
