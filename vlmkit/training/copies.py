"""Batches on their way to the device that trains on them: beside its computation where it is a CUDA device.

The micro-batches of an update are copied on a stream of their own, from memory that was pinned where they were made, and each computation
waits for its own batch alone. So the first copy runs beside the optimizer's last step, and the others beside forward and backward passes.
No batch is taken from the data before its update: what a saved state says of the data stays true.

The side of CUDA was never run on a GPU; a test holds the order of its calls on a stand-in.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from vlmkit.training.engines.base import Batch
from vlmkit.views import is_whole_numbers


def to_device(batch: Batch, device: torch.device) -> dict[str, Tensor]:
    """A batch whose whole numbers about views stay on the CPU, where they are read."""
    return {name: value if is_whole_numbers(name) else value.to(device, non_blocking=True) for name, value in batch.items()}


class Coming(NamedTuple):
    """A batch whose copy was begun."""

    batch: dict[str, Tensor]
    copied: Any = None
    """The event behind its copy; None where there is nothing to wait for."""


class Copier:
    def __init__(self, device: torch.device, streams: Any = None) -> None:
        """streams: torch.cuda, or what stands in for it; by default that of the device, if it has streams."""
        self.device = device
        self._streams = torch.cuda if streams is None and device.type == "cuda" else streams
        self._beside: Any = self._streams.Stream(device) if self._streams is not None else None

    def begin(self, batch: Batch) -> Coming:
        """Start to copy."""
        if self._streams is None:
            return Coming(to_device(batch, self.device))
        with self._streams.stream(self._beside):
            copied = to_device(batch, self.device)
            return Coming(copied, self._beside.record_event())

    def take(self, coming: Coming) -> dict[str, Tensor]:
        """The batch, for computation that is asked for from now on. The program itself does not wait."""
        if coming.copied is not None:
            computing = self._streams.current_stream(self.device)
            computing.wait_event(coming.copied)
            for value in coming.batch.values():
                if value.is_cuda:  # its memory was taken on the other stream, and is not to be used again before this one is done
                    value.record_stream(computing)
        return coming.batch
