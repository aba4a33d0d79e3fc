"""Whether a module's weights are spread over processes, so that calling it is something all of them do together."""

from __future__ import annotations

from torch import nn


def is_sharded(module: nn.Module) -> bool:
    """True under FSDP2 (DTensor) and DeepSpeed's ZeRO-3 (`ds_id`)."""
    from torch.distributed.tensor import DTensor

    return any(isinstance(parameter, DTensor) or hasattr(parameter, "ds_id") for parameter in module.parameters())
