"""Fused kernels in place of a language model's own norms, rotations and gated MLPs: Liger (Hsu et al. 2024, arXiv:2410.10989).

Put in by transformers' own integration, with the classes and functions that liger-kernel has for the model type. Its losses are left out: a
vlmkit model takes its loss itself, of supervised positions alone. Where liger replaces a function of a transformers module, such as the
rotation, every model of that type in the process has it from then on.

The kernels are Triton's and need a GPU. They were never run here; that they are put where they belong was seen with liger-kernel 0.8.5.
"""

from __future__ import annotations

import importlib.util
from typing import Any

import torch
from torch import nn

from vlmkit.registry import suggestion
from vlmkit.spec import SpecError

LEFT_OUT = {"cross_entropy": False, "fused_linear_cross_entropy": False}


def use_liger(model: nn.Module, device: torch.device) -> None:
    """Put the kernels into `model.language_model`, where it will compute on that device. Raises SpecError as `refuse_liger` does."""
    refuse_liger(model, device)
    from transformers.integrations.liger import apply_liger_kernel

    apply_liger_kernel(model.language_model, LEFT_OUT)


def refuse_liger(model: nn.Module, device: torch.device) -> None:
    """Raise SpecError where liger-kernel is not installed, has nothing for the model type, or the device cannot run it."""
    language_model: Any = model.language_model
    if importlib.util.find_spec("liger_kernel") is None:
        raise SpecError("kernels 'liger' needs liger-kernel: pip install 'vlmkit[liger]', or leave kernels out of the stage")
    if device.type == "cpu":
        raise SpecError("kernels 'liger' are Triton's and need a GPU, but the run is on cpu; leave kernels out of the stage")
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN as KNOWN

    if (kind := language_model.config.model_type) not in KNOWN:
        raise SpecError(
            f"kernels 'liger': liger-kernel has none for language model {kind!r};{suggestion(kind, KNOWN)} it has some for "
            f"{', '.join(sorted(KNOWN))}; leave kernels out of the stage"
        )
