"""Attention in which the first tokens of a row attend to all, and the others to those alone: Llama 3.2-Vision's (encoders/mllama.py)."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

ATTENTION = "vlmkit_first_alone"


def first_alone(
    module: nn.Module, query: Tensor, key: Tensor, value: Tensor, reach: tuple[int, ...], scaling: float, **unused: Any
) -> tuple[Tensor, None]:
    """Attention (I, heads, L, d) in which the first `reach[i]` tokens of row i attend to all, and the others to those alone.

    Returns (I, L, heads, d). Two calls for all rows of one reach, and no mask.
    """
    rows: defaultdict[int, list[int]] = defaultdict(list)
    for number, count in enumerate(reach):
        rows[count].append(number)
    out = list(query)
    for count, members in rows.items():
        q, k, v = (part if len(rows) == 1 else torch.stack([part[number] for number in members]) for part in (query, key, value))
        first = functional.scaled_dot_product_attention(q[:, :, :count], k, v, scale=scaling)
        others = functional.scaled_dot_product_attention(q[:, :, count:], k[:, :, :count], v[:, :, :count], scale=scaling)
        for number, attended in zip(members, torch.cat([first, others], dim=2), strict=True):
            out[number] = attended
    return torch.stack(out).transpose(1, 2), None
