"""Which bytes live at each moment of a step, by kind, counted as tensors come and go.

Works on any device, also on "meta", where a tensor is a shape without memory. What a kernel takes for itself while it runs is not seen.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

KINDS = ("activations", "logits", "gradients")
ACTIVATIONS, LOGITS, GRADIENTS = range(3)


@dataclass
class Moments:
    """Bytes of each kind after every operation that changed them."""

    bytes: list[tuple[int, int, int]] = field(default_factory=lambda: [(0, 0, 0)])
    """(activations, logits, gradients)"""
    flops: int = 0
    """Of matrix products and convolutions."""


class Ledger(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Inside of this mode every new storage is booked, and struck off when nothing refers to it any longer.

    known: tensors that are there before (weights), which do not count. vocabulary: tensors whose last dimension is so wide are logits.
    """

    def __init__(self, known: Iterable[Tensor], vocabulary: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.moments = Moments()
        self._vocabulary = vocabulary
        self._known = {tensor.untyped_storage()._cdata for tensor in known}
        self._live: dict[int, tuple[int, int, Any]] = {}
        self._sums = [0, 0, 0]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        counted: Callable[..., int] | None = flop_registry.get(func._overloadpacket)
        if counted is not None:
            self.moments.flops += int(counted(*args, **kwargs, out_val=out))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._book(leaf)
        self._note()
        return out

    def gradient(self, parameter: Tensor) -> None:
        """A hook for parameters: what was booked as an activation has become this parameter's gradient."""
        assert parameter.grad is not None
        key = parameter.grad.untyped_storage()._cdata
        if key in self._live:
            size, kind, reference = self._live[key]
            self._sums[kind] -= size
            self._sums[GRADIENTS] += size
            self._live[key] = size, GRADIENTS, reference
            self._note()

    def _book(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known or key in self._live:
            return
        size = storage.nbytes()
        kind = LOGITS if tensor.dim() > 1 and tensor.shape[-1] == self._vocabulary else ACTIVATIONS
        # The storage's Python object lives as long as the storage does, whoever holds it.
        self._live[key] = size, kind, weakref.ref(storage, lambda _: self._strike(key))
        self._sums[kind] += size

    def _strike(self, key: int) -> None:
        size, kind, _ = self._live.pop(key)
        self._sums[kind] -= size

    def _note(self) -> None:
        now = (self._sums[0], self._sums[1], self._sums[2])
        if now != self.moments.bytes[-1]:
            self.moments.bytes.append(now)


def watch(ledger: Ledger, model: nn.Module) -> None:
    """Let gradients of the model's parameters be booked as such."""
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.register_post_accumulate_grad_hook(ledger.gradient)  # type: ignore[no-untyped-call]
