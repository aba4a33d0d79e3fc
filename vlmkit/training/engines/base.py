"""What an engine is: where weights lie, who computes what, how gradients meet, and how weights move.

The loop is the same for all. An engine is asked for a model, told what learns in a stage, and then for gradients and steps.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from vlmkit.training.blueprint import Blueprint
from vlmkit.training.processes import Processes
from vlmkit.training.stage import Stage
from vlmkit.training.states import Piece, SavedState, StateError
from vlmkit.weight_source import WeightSource

Batch = Mapping[str, Tensor]
Loss = Callable[[nn.Module, Batch], Tensor]
"""The model and a batch -> the mean loss of the batch."""

Reads = Callable[[nn.Module], WeightSource]
"""A model as it was prepared -> where its weights are read."""
Optimizers = Callable[[], list[torch.optim.Optimizer]]
HEAD = "head."
"""Begins the names of what learns beside the model."""


@dataclass
class Share:
    """What this process holds of a parameter."""

    name: str
    shape: tuple[int, ...]
    """Of the whole parameter."""
    start: int
    values: Tensor
    """(n,), a view: the run from `start` on of the flattened parameter, in the precision in which it is kept."""
    optimizer: torch.optim.Optimizer | None = None
    """Of a parameter that learns. Its state belongs to `key`, of which this share begins at `offset`."""
    key: Any = None
    offset: int = 0
    average: Tensor | None = field(default=None, repr=False)
    """Exponential moving average of the values, in float32, in stages that keep one."""

    def states(self) -> dict[str, Tensor]:
        """Views into the optimizer's tensors for these values, by the optimizer's names. Empty before the first step."""
        if self.optimizer is None:
            return {}
        found = self.optimizer.state.get(self.key, {})
        length = len(self.values)
        return {
            name: local(value).reshape(-1)[self.offset : self.offset + length]
            for name, value in found.items()
            if isinstance(value, Tensor) and value.dim() and value.shape == self.key.shape
        }

    def scalars(self) -> dict[str, float]:
        """The optimizer's other numbers for it, such as `step`."""
        if self.optimizer is None:
            return {}
        found = self.optimizer.state.get(self.key, {})
        return {name: float(value) for name, value in found.items() if not (isinstance(value, Tensor) and value.dim())}

    def fill_states(self, saved: SavedState, kinds: frozenset[str]) -> None:
        """Bring the optimizer's state back from a saved one."""
        if self.optimizer is None:
            return
        state = self.optimizer.state[self.key]
        for kind in kinds:
            if kind not in state:
                state[kind] = torch.zeros_like(self.key, memory_format=torch.preserve_format)
            target = local(state[kind]).reshape(-1)[self.offset : self.offset + len(self.values)]
            target.copy_(saved.read(kind, self.name, self.start, len(self.values)))
        fused = any(group.get("fused") or group.get("capturable") for group in self.optimizer.param_groups)
        device = local(self.key).device if fused else torch.device("cpu")
        for name, value in saved.scalars.get(self.name, {}).items():
            state[name] = torch.tensor(value, dtype=torch.float32, device=device)


class Engine(ABC):
    """One way to train on the processes that there are."""

    name: str
    spread: bool
    """Whether each process holds a share of the weights only: such a model is made anew for every stage."""

    def __init__(self, processes: Processes, dtype: torch.dtype = torch.float32) -> None:
        """dtype: of the computation, and of weights that do not learn. What learns is kept in float32 all the same: in bfloat16 most
        steps would be rounded away."""
        self.processes, self.dtype = processes, dtype
        self.shares: list[Share] = []
        """What this process holds of the model, each shared parameter once, under its first name."""

    @abstractmethod
    def place(self, blueprint: Blueprint, weights: Reads, prepare: Callable[[nn.Module], None]) -> nn.Module:
        """The model of a stage: `prepare` adds adapters to it and says what learns (`requires_grad`), then each process takes its
        share of the weights."""

    @abstractmethod
    def begin(self, stage: Stage, model: nn.Module, optimizers: Optimizers, head: nn.Module | None = None) -> None:
        """Make ready for steps. `optimizers` makes them, for the parameters as they are placed by then. head: a module beside the model
        that learns with it, where weights are not spread."""

    @property
    @abstractmethod
    def rated(self) -> list[Any]:
        """The optimizers whose groups have the rates."""

    @abstractmethod
    def backward(self, loss: Loss, batch: Batch, *, part: float, last: bool) -> Tensor:
        """Gradients of `part` of the loss of one micro-batch; at the `last` one of an update they meet those of other processes, as their
        mean. Returns that part of the loss, without a look at it."""

    @abstractmethod
    def norm(self, clip: float) -> float:
        """Norm of the gradient of all that learns, over all processes; the gradient itself is cut to `clip` by the step at the latest."""

    @abstractmethod
    def step(self) -> None:
        """Move the weights by the gradients and forget these."""

    @abstractmethod
    def forget(self) -> None:
        """Drop the gradients of an update that is not made."""

    @abstractmethod
    def end(self) -> None:
        """Let go of all but the weights, after the last step of a stage."""

    def precision(self) -> AbstractContextManager[Any]:
        """In which a forward pass computes."""
        return nullcontext()

    def settle(self, model: nn.Module) -> None:
        """After forward passes without a backward pass: what was made whole for them is no longer held."""
        return

    def start_averages(self) -> None:
        """Keep a moving average of what learns, from the weights as they are now."""
        for share in self.shares:
            if share.optimizer is not None:
                share.average = share.values.float().clone()

    def average(self, decay: float) -> None:
        """After a step."""
        kept = [share for share in self.shares if share.average is not None]
        if kept:
            averages = [share.average for share in kept if share.average is not None]
            torch._foreach_lerp_(averages, [share.values.float() for share in kept], 1 - decay)

    # --- the state --------------------------------------------------------------------------------------------------------

    def pieces(self, model: nn.Module, *, within: bool) -> Iterator[Piece]:
        """All of the state that this process writes: each value of the model is a piece of one process. within: a stage goes on from it;
        otherwise optimizer states and a head are no longer needed."""
        for share in self.shares:
            if not self._writes(share) or (share.name.startswith(HEAD) and not within):
                continue
            yield Piece("weight", share.name, share.shape, share.start, share.values)
            for kind, values in share.states().items() if within else ():
                yield Piece(kind, share.name, share.shape, share.start, values)
            if share.average is not None:
                yield Piece("average", share.name, share.shape, share.start, share.average)
        if self.processes.main:
            for name, value in buffers(model).items():
                yield Piece("buffer", name, tuple(value.shape), 0, value.reshape(-1))

    def scalars(self) -> dict[str, dict[str, float]]:
        return {share.name: found for share in self.shares if (found := share.scalars())}

    def _writes(self, share: Share) -> bool:
        return True

    def restore(self, saved: SavedState) -> None:
        """What a state that was saved within the stage has beside the weights that compute: the precise ones, those of a head, optimizer
        states, averages."""
        kinds = saved.kinds() - {"weight", "average", "buffer"}
        stateful = {name for kind in kinds for name in saved.names(kind)}
        averaged = saved.names("average")
        with torch.no_grad():
            for share in self.shares:
                if share.optimizer is not None or share.name.startswith(HEAD):
                    share.values.copy_(saved.read("weight", share.name, share.start, len(share.values)))
                if share.optimizer is not None and share.name in stateful:
                    share.fill_states(saved, frozenset(kind for kind in kinds if share.name in saved.names(kind)))
                if share.average is not None and share.name in averaged:
                    share.average.copy_(saved.read("average", share.name, share.start, len(share.values)))


def whole_shares(module: nn.Module, prefix: str = "") -> list[Share]:
    """Of a module that is whole in this process."""
    return [
        Share(f"{prefix}{name}", tuple(value.shape), 0, value.detach().view(-1), key=value) for name, value in module.named_parameters()
    ]


def fill(model: nn.Module, shares: list[Share], weights: WeightSource) -> None:
    """Read the values of every share, and the buffers of a checkpoint. Raises StateError for what is missing, unknown or misshapen."""
    found, own = set(weights.names()), {share.name: share.shape for share in shares}
    if missing := sorted(own.keys() - found):
        raise StateError(f"the weights lack {_some(missing)}")
    known = model.state_dict(keep_vars=True).keys()
    if unknown := sorted(name for name in found - own.keys() - known if not name.startswith(HEAD)):
        raise StateError(f"the weights have {_some(unknown)}, which the model lacks")
    if wrong := sorted(name for name, shape in own.items() if weights.shape(name) != shape):
        raise StateError(f"{wrong[0]} is {weights.shape(wrong[0])} in the weights, the model has {own[wrong[0]]}")
    with torch.no_grad():
        for share in shares:
            share.values.copy_(weights.read(share.name, share.start, len(share.values)))
        for name, value in buffers(model).items():
            if name in found:
                value.copy_(weights.read(name, 0, value.numel()).view(value.shape))


def buffers(model: nn.Module) -> dict[str, Tensor]:
    """What a checkpoint has beside parameters: persistent buffers."""
    parameters = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {name: value for name, value in model.state_dict(keep_vars=True).items() if name not in parameters}


def local(value: Tensor) -> Tensor:
    """This process's share of a DTensor; any other tensor as it is."""
    to_local = getattr(value, "to_local", None)
    found: Tensor = value if to_local is None else to_local()
    return found


def blocks_of(model: nn.Module) -> list[nn.Module]:
    """Layers that repeat: the children of module lists, of the outermost ones only. Several towers stand in a list too, but are none."""
    found: list[nn.Module] = []

    def walk(module: nn.Module) -> None:
        repeats = isinstance(module, nn.ModuleList) and module is not getattr(model, "encoder", None)
        for child in module.children():
            if not repeats:
                walk(child)
            elif next(child.parameters(), None) is not None:
                found.append(child)

    walk(model)
    return found


def compile_blocks(model: nn.Module) -> None:
    """Let torch.compile make each block when it is first called. Blocks of every kind share one forward of transformers, and each kind
    takes a graph or two of it: of more than 8, torch's limit, the rest would run as they are."""
    import torch._dynamo

    torch._dynamo.config.recompile_limit = max(64, torch._dynamo.config.recompile_limit)
    for block in blocks_of(model):
        block.compile()


def _some(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
