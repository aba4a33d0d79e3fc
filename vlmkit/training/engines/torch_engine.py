"""What engines that step with torch's own optimizers have in common."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from vlmkit.training.engines.base import HEAD, Batch, Engine, Loss, Optimizers, Share, compile_blocks, whole_shares
from vlmkit.training.stage import Stage


class TorchEngine(Engine):
    """Parameters and gradients lie where torch's optimizers look for them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._optimizers: list[torch.optim.Optimizer] = []
        self._model: nn.Module | None = None

    def begin(self, stage: Stage, model: nn.Module, optimizers: Optimizers, head: nn.Module | None = None) -> None:
        if stage.compile:
            compile_blocks(model)
        self._optimizers = optimizers()
        self.shares = self._shares(model) + ([] if head is None else whole_shares(head, HEAD))
        owners = {id(key): optimizer for optimizer in self._optimizers for group in optimizer.param_groups for key in group["params"]}
        for share in self.shares:
            share.optimizer = owners.get(id(share.key))
        self._model = self._wrapped(model)

    @property
    def rated(self) -> list[Any]:
        return self._optimizers

    @property
    def learning(self) -> list[nn.Parameter]:
        """In the order of the model, which the norm is summed in."""
        return [share.key for share in self.shares if share.optimizer is not None]

    def backward(self, loss: Loss, batch: Batch, *, part: float, last: bool) -> Tensor:
        assert self._model is not None, "begin() comes before the first step"
        with self._synchronized(self._model, last):
            with self.precision():
                value = loss(self._model, batch) * part
            value.backward()  # type: ignore[no-untyped-call]
        return value.detach()

    def norm(self, clip: float) -> float:
        norm: Any = nn.utils.clip_grad_norm_(self.learning, clip)
        return float(norm.full_tensor() if hasattr(norm, "full_tensor") else norm)

    def step(self) -> None:
        for optimizer in self._optimizers:
            optimizer.step()
        self.forget()

    def forget(self) -> None:
        for optimizer in self._optimizers:
            optimizer.zero_grad()

    def end(self) -> None:
        self._optimizers, self._model, self.shares = [], None, []

    def _wrapped(self, model: nn.Module) -> nn.Module:
        return model

    def _synchronized(self, model: nn.Module, last: bool) -> AbstractContextManager[Any]:
        return nullcontext()

    def _shares(self, model: nn.Module) -> list[Share]:
        return whole_shares(model)
