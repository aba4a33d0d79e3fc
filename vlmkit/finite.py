"""Numbers that are none: an answer of a model whose logits are NaN would be the first token of its vocabulary, again and again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn


def refuse_numberless(logits: Tensor) -> None:
    """Raise FloatingPointError for logits with NaN or +inf; -inf stands for a token that may not come."""
    # One number: the largest of numbers with NaN among them is NaN.
    if not logits.max().item() < torch.inf:
        raise FloatingPointError("the logits are not finite")


def where(model: nn.Module, batch: Mapping[str, Any]) -> str:
    """Where numbers stop being finite, as the end of a sentence: a weight, what goes in, or the module that first gives some. The batch is
    run once more. Called after something went wrong."""
    for name, value in model.named_parameters():
        if not value.is_meta and not finite(value):
            return f"weight {name} holds NaN or infinite values; fetch or train it again"
    for name, value in batch.items():
        if isinstance(value, Tensor) and not finite(value):
            return f"{name} hold NaN or infinite values; look at the images that went in"
    first: list[str] = []

    def told(name: str) -> Any:
        def hook(module: nn.Module, _: Any, output: Any) -> None:
            values = output if isinstance(output, tuple) else (output,)
            if not first and any(isinstance(value, Tensor) and not finite(value) for value in values):
                first.append(f"{name} ({type(module).__name__})")

        return hook

    hooks = [module.register_forward_hook(told(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            model(**batch)
    finally:
        for hook in hooks:
            hook.remove()
    dtype = str(next(model.parameters()).dtype).removeprefix("torch.")
    at = f"the first values that are not finite come out of {first[0]}" if first else "the prompt alone gives finite logits"
    return f"{at}, which computes in {dtype}" + ("; load the model with dtype='bfloat16' or 'float32'" if dtype == "float16" else "")


def finite(value: Tensor) -> bool:
    """Whether every value is a number. -inf in a floating tensor is none either."""
    return not value.is_floating_point() or bool(value.isfinite().all())
