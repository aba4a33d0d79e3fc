"""Ways to train on the processes that there are, each by one word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmkit.training.run import RunError

if TYPE_CHECKING:
    import torch

    from vlmkit.training.engines.base import Engine
    from vlmkit.training.processes import Processes

ENGINES = ("single", "ddp", "fsdp2", "zero2", "zero3")


def engine(name: str | None, processes: Processes, *, dtype: str | torch.dtype = "float32") -> Engine:
    """The engine of this name; None: "single" for one process, "ddp" for several.

    Raises RunError for a name that is none, for "single" on several processes, and for ZeRO where DeepSpeed is not installed.
    """
    import torch

    from vlmkit.training.engines.fsdp2 import FSDP2
    from vlmkit.training.engines.whole import DDP, Single
    from vlmkit.training.engines.zero import Zero2, Zero3

    name = name or ("single" if processes.world == 1 else "ddp")
    classes: dict[str, type[Engine]] = {kind.name: kind for kind in (Single, DDP, FSDP2, Zero2, Zero3)}
    if name not in classes:
        raise RunError(f"no engine {name!r}; there are {', '.join(ENGINES)}")
    if name == "single" and processes.world > 1:
        raise RunError(f"engine 'single' is one process, and {processes.world} were started; choose ddp, fsdp2, zero2 or zero3")
    return classes[name](processes, getattr(torch, dtype) if isinstance(dtype, str) else dtype)
