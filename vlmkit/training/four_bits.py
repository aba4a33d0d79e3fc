"""Linear layers whose weights lie in four bits (NF4 of QLoRA, Dettmers et al. 2023, arXiv:2305.14314), by bitsandbytes.

Blocks of 64 weights share one float32 scale: 4.5 bits a weight. The scales are not quantized a second time (0.37 bits a weight): their mean
would lie in no tensor, and a state could not be continued from by filling tensors in place. Runs on CPU and was tested there; the kernels
for GPUs were never run. Engines that spread weights over processes refuse them (docs/adapters.md says why).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from vlmkit.spec import SpecError

BLOCK = 64
"""Weights that share a scale."""


def quantize(linear: Any, name: str) -> nn.Module:
    """The same layer with its weight in NF4, frozen. Raises SpecError on the meta device, where weights are spread over processes, where
    bitsandbytes is missing, and for rows that it reads wrongly."""
    from vlmkit.sharding import is_sharded

    try:
        from bitsandbytes.nn import Linear4bit, Params4bit
    except ImportError as error:
        raise SpecError(f"adapter.quantize: 'nf4' needs bitsandbytes ({error}); pip install 'vlmkit[qlora]'") from None
    weight: Tensor = linear.weight
    if weight.is_meta or is_sharded(linear):
        where = "on the meta device" if weight.is_meta else "spread over processes"
        raise SpecError(
            f"{name}: nf4 is made of weights that are whole, and these are {where}; train on engine single or ddp, or load the "
            "model before its adapters are added"
        )
    if weight.device.type == "cpu" and linear.in_features % BLOCK:
        # bitsandbytes 0.50.2: of (32, 32) values come back up to 0.87 of a block's largest away, where 0.152 is the most that NF4 can be.
        raise SpecError(
            f"{name}: bitsandbytes on CPU reads rows wrongly that are no multiple of {BLOCK} long, and these have {linear.in_features} "
            "weights; leave the layer out by adapter.modules, or put the model on a GPU first"
        )
    with torch.device("meta"):
        made = Linear4bit(
            linear.in_features,
            linear.out_features,
            bias=linear.bias is not None,
            compute_dtype=weight.dtype,
            compress_statistics=False,
            quant_type="nf4",
        )
    # Where a CPU has the instructions, it would lay the weight out anew in the middle of an evaluation, under the eyes of a save.
    made.support_avx512bf16_for_cpu = False
    made.weight = Params4bit(
        weight.detach().clone(), requires_grad=False, compress_statistics=False, quant_type="nf4", blocksize=BLOCK, module=made
    ).to(weight.device)
    made.bias = linear.bias
    made.register_load_state_dict_pre_hook(_fill_scales)
    made.train(linear.training)
    quantized: nn.Module = made
    return quantized


def _fill_scales(module: Any, state: dict[str, Any], prefix: str, *others: Any) -> None:
    """What a state dict holds beside the packed weight goes to where bitsandbytes keeps it; torch alone would call it unexpected."""
    held = module.weight.quant_state.as_dict(packed=True)
    for key in [key for key in state if key.startswith(f"{prefix}weight.")]:
        own = held.get(key.removeprefix(f"{prefix}weight."))
        value = state.pop(key)
        if own is None or own.shape != value.shape:
            raise SpecError(f"{key}: not of a weight of shape {tuple(module.weight.quant_state.shape)} in NF4 by vlmkit")
        with torch.no_grad():
            own.copy_(value)


def dequantized_weight(layer: Any) -> Tensor:
    """(out, in), in the dtype that the layer computes in."""
    from bitsandbytes.functional import dequantize_4bit

    weight: Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
    return weight


def dequantized(weight: Tensor, held: dict[str, Tensor]) -> Tensor:
    """(out, in) of a packed weight and what a state dict holds beside it ("absmax", "quant_map", "quant_state.bitsandbytes__nf4")."""
    from bitsandbytes.functional import QuantState, dequantize_4bit

    found: Tensor = dequantize_4bit(weight, QuantState.from_dict(held, device=weight.device))
    return found


def plain(layer: Any, weight: Tensor) -> nn.Linear:
    """An ordinary linear layer in place of one of four bits, with that weight (out, in)."""
    with torch.device("meta"):
        linear = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None)
    linear.weight = nn.Parameter(weight.to(layer.weight.quant_state.dtype))
    if layer.bias is not None:
        linear.bias = nn.Parameter(layer.bias.detach())
    return linear
