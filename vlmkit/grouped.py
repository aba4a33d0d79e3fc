"""Products of rows with one of several matrices, row by row sorted by matrix: what experts compute.

torch's grouped_mm, behind an operation of its own: shapes are known without values (the planner's trace, torch.compile), operations are
counted, and gradients may come in any layout. How many rows each matrix gets lies on the device and is not read back.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.flop_counter import register_flop_formula

ALIGNED = 16
"""Bytes of which a row of every operand has to be a multiple, for torch's kernels."""


@torch.library.custom_op("vlmkit::grouped_rows", mutates_args=())
def grouped_rows(rows: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    """Rows (R, I), of which [ends[e - 1], ends[e]) are of matrix e of weights (E, O, I), ends (E,) int32 -> (R, O)."""
    if _fits(rows, weights):
        return functional.grouped_mm(rows.contiguous(), weights.transpose(1, 2), offs=ends)
    pieces = torch.split(rows, _lengths(ends))
    return torch.cat([piece @ weight.T for piece, weight in zip(pieces, weights, strict=True)])


@grouped_rows.register_fake
def _(rows: Tensor, weights: Tensor, ends: Tensor) -> Tensor:
    return rows.new_empty(rows.shape[0], weights.shape[1])


@torch.library.custom_op("vlmkit::grouped_rows_gradients", mutates_args=())
def gradients(gradient: Tensor, rows: Tensor, weights: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """Of rows and weights, for the gradient (R, O) of what `grouped_rows` gave."""
    gradient, rows = gradient.contiguous(), rows.contiguous()
    if _fits(rows, weights):
        of_rows = functional.grouped_mm(gradient, weights, offs=ends)
        return of_rows, functional.grouped_mm(gradient.T, rows, offs=ends)
    lengths = _lengths(ends)
    pairs = list(zip(torch.split(gradient, lengths), torch.split(rows, lengths), weights, strict=True))
    of_rows = torch.cat([piece @ weight for piece, _, weight in pairs])
    return of_rows, torch.stack([piece.T @ read for piece, read, _ in pairs])


@gradients.register_fake
def _(gradient: Tensor, rows: Tensor, weights: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    return rows.new_empty(rows.shape), weights.new_empty(weights.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
    of_rows, of_weights = gradients(gradient, *ctx.saved_tensors)
    return of_rows, of_weights, None


grouped_rows.register_autograd(_backward, setup_context=_save)


@register_flop_formula(torch.ops.vlmkit.grouped_rows)
def _operations(rows: Any, weights: Any, ends: Any, *args: Any, **kwargs: Any) -> int:
    return 2 * int(rows[0]) * int(weights[1]) * int(weights[2])


@register_flop_formula(torch.ops.vlmkit.grouped_rows_gradients)
def _operations_of_gradients(gradient: Any, rows: Any, weights: Any, ends: Any, *args: Any, **kwargs: Any) -> int:
    return 4 * int(rows[0]) * int(weights[1]) * int(weights[2])


def _fits(rows: Tensor, weights: Tensor) -> bool:
    """Whether torch's kernels take operands of these widths; others are multiplied one after the other, which reads `ends` back."""
    return not any(width * rows.element_size() % ALIGNED for width in weights.shape[1:])


def _lengths(ends: Tensor) -> list[int]:
    return torch.diff(ends, prepend=ends.new_zeros(1)).tolist()
