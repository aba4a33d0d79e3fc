"""The module of `joined`: several towers' features, side by side or in a row."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from vlmkit.connectors.joined import Joined
from vlmkit.features import Features


def build(spec: Joined, dim_in: Any, dim_out: int) -> nn.Module:
    return JoinedModule(spec, spec.inner.build(spec.width(dim_in), dim_out))


class JoinedModule(nn.Module):
    def __init__(self, spec: Joined, inner: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.inner = inner

    def forward(self, *features: Features) -> Features:
        """(N, D_1), (N, D_2), ... -> (T, D_lm)"""
        grids = tuple(self.spec.joined_grid(of) for of in zip(*(one.grids for one in features), strict=True))
        if self.spec.how == "channels" or len(features) == 1:
            tokens = torch.cat([one.tokens for one in features], dim=-1)
        else:
            views = [view for of in zip(*(one.views() for one in features), strict=True) for view in of]
            tokens = torch.cat(views) if views else features[0].tokens
        out: Features = self.inner(Features(tokens, grids))
        return out
