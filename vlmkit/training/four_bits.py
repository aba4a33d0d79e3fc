"""Linear layers whose weights lie in four bits (NF4 of QLoRA, Dettmers et al. 2023, arXiv:2305.14314), by bitsandbytes' kernels.

    weight (out, in)  ->  packed (out, 32 * blocks) uint8, two values a byte; absmax (out, blocks) int32, the bits of a float32
                          blocks = in / 64, rounded up

A block of 64 weights of one row shares a scale: 4.5 bits a weight. No block goes over the end of a row, so whoever holds some rows makes
and reads their four bits alone; both tensors are parameters, which engines spread, save and continue as any other. Scales are stored as
whole numbers, for engines round what is none to the precision that they compute in. They are not quantized a second time (0.37 bits a
weight).

Where rows are a multiple of 64 long, bytes and scales are those of bitsandbytes' own Linear4bit; other rows are filled up with zeros, where
it lets blocks go on in the next row. Runs on CPU and was tested there; the kernels for GPUs were never run.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.sharding import is_sharded
from vlmkit.spec import SpecError

BLOCK = 64
"""Weights that share a scale."""
_KERNELS = (torch.float32, torch.float16, torch.bfloat16)
"""Precisions that bitsandbytes reads and writes."""


class FourBits(nn.Linear):
    """A frozen linear layer over four bits; a bias is an ordinary parameter. The weight is made whole for a product and forgotten behind
    it, in the backward pass again."""

    def __init__(self, columns: int, packed: Tensor, absmax: Tensor, bias: nn.Parameter | None, dtype: torch.dtype) -> None:
        """columns: weights of a row. dtype: of the weight that was packed."""
        nn.Module.__init__(self)
        self.in_features, self.out_features = columns, len(packed)
        self.packed = nn.Parameter(packed, requires_grad=False)
        self.absmax = nn.Parameter(absmax, requires_grad=False)
        self.bias = bias  # type: ignore[assignment]  # nn.Linear has None too
        self.dtype = dtype

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """(out, in), made of the four bits: a copy, so writing to it changes nothing."""
        return dequantized(self.packed, self.absmax, self.in_features, self.dtype)

    def forward(self, inputs: Tensor) -> Tensor:
        """(..., in) -> (..., out)"""
        device = inputs.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else inputs.dtype
        product: Tensor = _Product.apply(inputs.to(dtype), self.packed, self.absmax, self.in_features)
        return product if self.bias is None else product + self.bias.to(dtype)


class _Product(torch.autograd.Function):
    """What torch would keep for the backward pass is the dense weight."""

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, packed: Tensor, absmax: Tensor, columns: int) -> Tensor:
        ctx.save_for_backward(packed, absmax)
        ctx.columns = columns
        return functional.linear(inputs, dequantized(packed, absmax, columns, inputs.dtype))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        packed, absmax = ctx.saved_tensors
        return gradient @ dequantized(packed, absmax, ctx.columns, gradient.dtype), None, None, None


def load_kernels() -> None:
    """Make bitsandbytes' operations known to torch. Raises SpecError where it is missing."""
    try:
        import bitsandbytes  # noqa: F401
    except ImportError as error:
        raise SpecError(f"adapter.quantize: 'nf4' needs bitsandbytes ({error}); pip install 'vlmkit[qlora]'") from None


def quantize(linear: nn.Linear, name: str) -> FourBits:
    """The same layer with its weight in NF4, frozen; of a skeleton on the meta device, without values.

    Raises SpecError where bitsandbytes is missing, and for weights that are spread over processes already.
    """
    load_kernels()
    if is_sharded(linear):
        raise SpecError(f"{name}: its weights are spread over processes; add adapters before they are, as a stage with adapters does")
    weight = linear.weight.detach()
    rows, blocks = len(weight), -(-linear.in_features // BLOCK)
    if weight.is_meta:
        packed = torch.empty(rows, blocks * BLOCK // 2, dtype=torch.uint8, device="meta")
        absmax = torch.empty(rows, blocks, dtype=torch.int32, device="meta")
    else:
        packed, absmax = quantized_rows(weight)
    made = FourBits(linear.in_features, packed, absmax, linear.bias, weight.dtype)
    return made.train(linear.training)


def quantized_rows(weight: Tensor) -> tuple[Tensor, Tensor]:
    """(n, in) -> packed (n, 32 * blocks), absmax (n, blocks). What a row becomes depends on that row alone."""
    padded = functional.pad(weight, (0, -weight.shape[1] % BLOCK))
    blocks = padded.shape[1] // BLOCK
    if not len(padded):
        return padded.new_empty(0, blocks * BLOCK // 2, dtype=torch.uint8), padded.new_empty(0, blocks, dtype=torch.int32)
    fine = padded if padded.dtype in _KERNELS else padded.float()
    packed, absmax = torch.ops.bitsandbytes.quantize_4bit(fine.contiguous(), BLOCK, "nf4", torch.uint8)
    return packed.view(len(padded), -1), absmax.view(len(padded), -1).view(torch.int32)


def dequantized(packed: Tensor, absmax: Tensor, columns: int, dtype: torch.dtype) -> Tensor:
    """packed (n, 32 * blocks), absmax (n, blocks) -> (n, columns)"""
    shape = [len(packed), 2 * packed.shape[1]]
    if not len(packed):
        return torch.empty(0, columns, dtype=dtype, device=packed.device)
    made = dtype if dtype in _KERNELS else torch.float32
    scales = absmax.view(torch.float32).flatten()
    whole: Tensor = torch.ops.bitsandbytes.dequantize_4bit(packed.contiguous(), scales, BLOCK, "nf4", shape, made)
    return whole[:, :columns].to(dtype)


def plain(layer: FourBits, weight: Tensor) -> nn.Linear:
    """An ordinary linear layer in place of one of four bits, with that weight (out, in)."""
    with torch.device("meta"):
        linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    linear.weight = nn.Parameter(weight.to(layer.dtype))
    if layer.bias is not None:
        linear.bias = nn.Parameter(layer.bias.detach())
    return linear
