"""Attention as kernels do it that never make S x S numbers: what they keep for the backward pass, and their operations.

FlashAttention (Dao et al. 2022, arXiv:2205.14135) keeps queries, keys, values, the output and one number a query and head. torch's fused
kernel on CPU keeps the same; torch has no such kernel on the meta device, where it would make the scores.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from torch.overrides import TorchFunctionMode

NAME = "vlmkit_planned"
"""What transformers knows it under. It is given no mask function, so that no mask is made."""


class _Kernel(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        rows, heads, length, _ = queries.shape
        out = queries.new_empty(rows, length, heads, values.shape[-1]).transpose(1, 2)
        ctx.save_for_backward(queries, keys, values, out, queries.new_empty(rows, length, heads, dtype=torch.float32))
        return out

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        queries, keys, values, _, _ = ctx.saved_tensors
        return torch.empty_like(queries), torch.empty_like(keys), torch.empty_like(values)


class FusedAttention(TorchFunctionMode):
    """Inside of this mode attention is such a kernel.

    spoken: tokens that see each other in the language model on average, L; a row holds several samples, and no token sees another's.
    repeated: keys and values are written out for every head of queries, as torch does on CPU where several heads share one. `flops` are
    the operations so far, of forward and backward passes together.
    """

    def __init__(self, spoken: float, *, repeated: bool) -> None:
        super().__init__()
        self.spoken, self.repeated = spoken, repeated
        self.flops = 0

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is not scaled_dot_product_attention:
            return func(*args, **kwargs)
        queries, keys, values = args[:3]
        return self.attend(queries, keys, values, keys.shape[2])

    def attend(self, queries: Tensor, keys: Tensor, values: Tensor, seen: float) -> Tensor:
        """(B, heads, S, d) -> the same shape. seen: keys that a query looks at."""
        groups = queries.shape[1] // keys.shape[1]
        if self.repeated and groups > 1:
            keys, values = keys.repeat_interleave(groups, dim=1), values.repeat_interleave(groups, dim=1)
        forward = 2 * queries.shape[0] * queries.shape[1] * queries.shape[2] * seen * (queries.shape[3] + values.shape[3])
        # Two products forward, four backward; scores that a kernel makes again are not counted.
        self.flops += int(forward * (3 if queries.requires_grad or keys.requires_grad or values.requires_grad else 1))
        out: Tensor = _Kernel.apply(queries, keys, values)
        return out

    def register(self) -> str:
        """Make it known to transformers; its name there."""
        from transformers import AttentionInterface

        def forward(module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Any, **options: Any) -> tuple[Tensor, None]:
            return self.attend(query, key, value, (self.spoken + 1) / 2).transpose(1, 2).contiguous(), None

        AttentionInterface.register(NAME, forward)
        return NAME
