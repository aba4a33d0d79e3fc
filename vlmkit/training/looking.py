"""Looking at a model between two updates, without a trace in the training.

    with looking(engine, model):
        scores = evaluate(model)

The model answers in evaluation mode, without gradients, in the precision that it is trained in. Afterwards modules are in the mode that
they were in, and the random numbers of torch, NumPy and Python go on as if nothing had been drawn: losses with and without a look are
the same bits. Where weights are spread, all processes look at once and at the same thing, so that every collective meets its like.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn

from vlmkit.training.engines.base import Engine

Evaluate = Callable[[Any], Mapping[str, float]]
"""A model -> its scores by name, such as "vqa/exact"."""


@contextmanager
def looking(engine: Engine, model: nn.Module) -> Iterator[None]:
    before = {module: module.training for module in model.modules()}
    model.eval()
    device = engine.processes.device
    try:
        with (
            torch.random.fork_rng(devices=[device.index] if device.type == "cuda" else []),
            _others_random(),
            _generating_together(model, engine.spread),
            torch.no_grad(),
            engine.precision(),
            # Every length of an answer would be a graph of its own.
            torch.compiler.set_stance("force_eager"),
        ):
            yield
    finally:
        for module, training in before.items():
            module.training = training
        engine.settle(model)


@contextmanager
def _others_random() -> Iterator[None]:
    own, of_numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(own)
        np.random.set_state(of_numpy)


@contextmanager
def _generating_together(model: Any, spread: bool) -> Iterator[None]:
    """transformers' `generate` goes on until the answers of all processes are finished where a model says this of itself: two devices
    need not round alike, and one of them would wait for the other's next token for ever."""
    if not spread:
        yield
        return
    model._is_fsdp_managed_module = True
    try:
        yield
    finally:
        del model._is_fsdp_managed_module
