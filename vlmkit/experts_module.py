"""The module of `Experts`: a router and experts in the place of an FFN, and what a forward pass says of them.

All experts of a layer are one FFN whose linear layers hold a matrix for each of them: `mlp.experts.up_proj.weight` (E, out, in) beside
`mlp.gate.weight` (E, D). It is called once a forward pass, over the tokens sorted by expert, so that every process enters the same
modules however its tokens are spread, and nothing is read back from the device.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from vlmkit.experts import Experts
from vlmkit.grouped import grouped_rows
from vlmkit.spec import SpecError

FFN = "mlp"
"""What the layers of transformers' decoders call it."""


class Routes:
    """What the routers of one forward pass did."""

    def __init__(self) -> None:
        self.unevenness: list[Tensor] = []
        """Of each layer: 1 where tokens are spread evenly."""
        self.counts: list[Tensor] = []
        """Of each layer (E,): tokens that went to each expert."""


class Mixtures:
    """The mixtures of one language model, and what its forward pass tells them and hears from them."""

    def __init__(self, experts: Experts) -> None:
        self.experts = experts
        self.layers: dict[int, Mixture] = {}
        """By the number of the layer."""
        self.held: Tensor | None = None
        """(N,): rows of the current batch that are tokens and no padding; None: all."""
        self.routes: Routes | None = None
        """Of the pass that is listened to."""
        self.last: Tensor | None = None
        """(L, E): tokens that went to each expert in the last pass that was listened to."""
        self.taken: Tensor | None = None
        """(L, E): the same of all training passes since `take`."""

    @property
    def loss(self) -> Tensor | None:
        """Of the pass that is listened to: what spreads tokens evenly, times its factor; None where it counts nothing."""
        if self.routes is None or not self.routes.unevenness or not self.experts.balance:
            return None
        return self.experts.balance * torch.stack(self.routes.unevenness).sum()

    def take(self) -> Tensor | None:
        """(L, E): tokens that went to each expert in training since the last call; None where there were none."""
        taken, self.taken = self.taken, None
        return taken


class Router(nn.Module):
    """Tokens (N, D) -> logits of the experts (N, E), in float32 whatever the weights are."""

    def __init__(self, dim: int, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, dim))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """As nn.Linear."""
        bound = 1 / math.sqrt(self.weight.shape[1])
        nn.init.uniform_(self.weight, -bound, bound)

    def forward(self, rows: Tensor) -> Tensor:
        return functional.linear(rows.float(), self.weight.float())


class Groups:
    """How sorted rows belong to experts, for the linear layers of one mixture."""

    ends: Tensor
    """(E,) int32: where the rows of each expert end."""
    expert: Tensor
    """(R,): the expert of each row."""


class GroupedLinear(nn.Module):
    """A linear layer with a matrix for each expert, over rows sorted by expert: (R, in) -> (R, out)."""

    def __init__(self, one: nn.Linear, count: int, groups: Groups) -> None:
        """Begun as copies of one."""
        super().__init__()
        self.groups = groups
        self.weight = _copies(one.weight, count)
        self.bias = None if one.bias is None else _copies(one.bias, count)

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(self.weight.shape[2])
        for parameter in self.parameters():
            nn.init.uniform_(parameter, -bound, bound)

    def forward(self, rows: Tensor) -> Tensor:
        out: Tensor = grouped_rows(rows.to(self.weight.dtype), self.weight, self.groups.ends)
        if self.bias is None:
            return out
        own = functional.one_hot(self.groups.expert, len(self.bias)).to(self.bias.dtype)
        return out + own @ self.bias


class Mixture(nn.Module):
    """(..., D) -> (..., D): each token's `top` experts, weighted by the router."""

    def __init__(self, ffn: nn.Module, dim: int, mixtures: Mixtures, layer: int) -> None:
        """ffn: becomes the experts, in place."""
        super().__init__()
        spec = mixtures.experts
        self.mixtures, self.layer = mixtures, layer
        self.count, self.top, self.capacity = spec.count, spec.top, spec.capacity
        self.groups = Groups()
        self.gate = Router(dim, spec.count)
        for name, module in list(ffn.named_modules()):
            if isinstance(module, nn.Linear):
                parent, _, child = name.rpartition(".")
                setattr(ffn.get_submodule(parent), child, GroupedLinear(module, spec.count, self.groups))
        self.experts = ffn

    @property
    def share(self) -> float:
        """Of the experts' weights, what a token meets."""
        return self.top / self.count

    def forward(self, hidden_states: Tensor) -> Tensor:
        rows = hidden_states.reshape(-1, hidden_states.shape[-1])
        held = self.mixtures.held
        held = None if held is None or held.numel() != len(rows) else held
        probabilities = self.gate(rows).softmax(dim=-1)
        weights, chosen = probabilities.topk(self.top, dim=-1)  # (N, K)
        sent = functional.one_hot(chosen.T, self.count)  # (K, N, E)
        if held is not None:
            sent = sent * held[:, None]
        if self.capacity is not None and self.training:
            weights = weights * self._seated(sent)
        weights = weights / weights.sum(dim=-1, keepdim=True).clamp(min=torch.finfo(weights.dtype).eps)
        if self.mixtures.routes is not None or torch.is_grad_enabled():
            # Also where nobody listens: a layer that is recomputed has to do what it did.
            unevenness = self._unevenness(probabilities, sent, held)
            if self.mixtures.routes is not None:
                self.mixtures.routes.unevenness.append(unevenness)
                self.mixtures.routes.counts.append(sent.detach().sum(dim=(0, 1)))
        answers = self._ask(rows, chosen.T.flatten()).view(self.top, *rows.shape)
        mixed: Tensor = (answers * weights.T[..., None]).sum(dim=0)
        return mixed.to(hidden_states.dtype).view(hidden_states.shape)

    def _ask(self, rows: Tensor, expert: Tensor) -> Tensor:
        """Rows (N, D), and the expert of each of their K copies (K * N,) -> answers (K * N, D)."""
        self.groups.expert, order = expert.sort(stable=True)
        numbers = torch.arange(self.count, device=expert.device)
        self.groups.ends = (expert[:, None] == numbers).sum(dim=0).cumsum(dim=0).to(torch.int32)
        answers: Tensor = self.experts(rows[order % len(rows)])
        return answers[order.argsort()]

    def _seated(self, sent: Tensor) -> Tensor:
        """(N, K): 1 where the expert has room for the token, else 0. First choices come before second ones, as in GShard's gating (Lepikhin
        et al. 2020, arXiv:2006.16668) and DeepSpeed's; padding takes no room."""
        assert self.capacity is not None
        in_line = sent.flatten(0, 1).cumsum(dim=0).view(sent.shape) - 1
        tokens = sent[0].sum()
        room = (tokens * (self.top * self.capacity / self.count)).ceil()
        return ((in_line < room) & (sent > 0)).any(dim=-1).T.float()

    def _unevenness(self, probabilities: Tensor, sent: Tensor, held: Tensor | None) -> Tensor:
        """E * sum over experts of (share of tokens that chose it first) * (mean probability): equation 8 of MoE-LLaVA."""
        present = sent[0].new_tensor(len(probabilities)) if held is None else held.sum()
        tokens = present.clamp(min=1)
        first = sent[0].sum(dim=0) / tokens
        mean = (probabilities if held is None else probabilities * held[:, None]).sum(dim=0) / tokens
        found: Tensor = self.count * (first * mean).sum()
        return found


def routed(language_model: Any, held: Tensor | None, *, heard: bool) -> AbstractContextManager[Mixtures | None]:
    """A forward pass of a language model over rows of which `held` (B, S) are no padding; `heard`: with a loss. None where it has no
    mixtures of ours.

    What is held stays known afterwards: layers that are recomputed in the backward pass have to drop the same tokens again.
    """
    mixtures: Mixtures | None = getattr(language_model, "mixtures", None)
    return _NOTHING if mixtures is None else _routed(mixtures, held, heard)


_NOTHING = nullcontext(None)


@contextmanager
def _routed(mixtures: Mixtures, held: Tensor | None, heard: bool) -> Iterator[Mixtures]:
    mixtures.held = None if held is None else held.reshape(-1).bool()
    mixtures.routes = Routes() if heard else None
    try:
        yield mixtures
        if mixtures.routes is not None and mixtures.routes.counts:
            mixtures.last = torch.stack(mixtures.routes.counts)
            if torch.is_grad_enabled():
                mixtures.taken = mixtures.last if mixtures.taken is None else mixtures.taken + mixtures.last
    finally:
        mixtures.routes = None


def put_experts(language_model: Any, experts: Experts) -> Any:
    """Turn FFNs of a language model into experts, in place; returns it. Routers are drawn where its weights are, from torch's random
    numbers. Raises SpecError where there are no such layers, or no FFNs of linear layers in them."""
    config = language_model.config
    layers = _layers(language_model)
    mixtures = Mixtures(experts)
    for number in experts.numbers(len(layers)):
        ffn = getattr(layers[number], FFN, None)
        refuse_other(ffn, number, config.model_type)
        weight = next(cast(nn.Module, ffn).parameters())
        with torch.device(weight.device):
            mixture = Mixture(cast(nn.Module, ffn), config.hidden_size, mixtures, number)
        mixture.gate.to(weight.dtype)
        mixtures.layers[number] = mixture.train(language_model.training)
        setattr(layers[number], FFN, mixture)
    language_model.mixtures = mixtures
    return language_model


def refuse_other(ffn: nn.Module | None, number: int, model_type: str) -> None:
    """Raise SpecError for a layer without an FFN, and for one with weights beside linear layers."""
    if not isinstance(ffn, nn.Module):
        raise SpecError(
            f"language_model.experts: layer {number} of {model_type!r} has no FFN by the name of {FFN!r}; choose a language model whose "
            "layers have one, such as 'llama'"
        )
    linear = {f"{name}.{own}" for name, each in ffn.named_modules() if isinstance(each, nn.Linear) for own, _ in each.named_parameters()}
    if other := [name for name, _ in ffn.named_parameters() if name not in linear]:
        raise SpecError(
            f"language_model.experts: the FFN of layer {number} of {model_type!r} has weights beside linear layers ({other[0]}); experts "
            "are made of plain FFNs, and a mixture of experts is not made of another one"
        )


def redraw_routers(language_model: Any) -> None:
    """Draw the routers anew on the CPU, as `put_experts` draws them, of a model that is on the meta device."""
    mixtures: Mixtures | None = getattr(language_model, "mixtures", None)
    for mixture in () if mixtures is None else mixtures.layers.values():
        shape, dtype = mixture.gate.weight.shape, mixture.gate.weight.dtype
        drawn = Router(shape[1], shape[0]).to(dtype)
        mixture.gate = drawn


@torch.no_grad()
def spread(model: Any, batch: Mapping[str, Any]) -> dict[int, tuple[float, ...]]:
    """How the tokens of a batch spread among experts: for each layer that has some, the share of its tokens that goes to each; an equal
    share is 1 / count. The batch is as the processor gives it. Raises SpecError for a model without experts of `Experts`."""
    mixtures: Mixtures | None = getattr(model.language_model, "mixtures", None)
    if mixtures is None:
        raise SpecError(f"{model.spec.name} has no experts; give its language model some: language_model.replace(experts=Experts())")
    taken = mixtures.taken
    model(**{**batch, "labels": batch.get("labels", batch["input_ids"])})
    mixtures.taken = taken
    assert mixtures.last is not None
    return shares(mixtures, mixtures.last)


def shares(mixtures: Mixtures, counts: Tensor) -> dict[int, tuple[float, ...]]:
    """Counts (L, E) as shares by the number of the layer. Reads them back from the device."""
    parts = (counts.double() / counts.sum(dim=1, keepdim=True).clamp(min=1)).tolist()
    return {number: tuple(row) for number, row in zip(mixtures.layers, parts, strict=True)}


def _layers(language_model: Any) -> nn.ModuleList:
    from vlmkit.causal_head import decoder_of  # which imports transformers

    decoder = decoder_of(language_model)[1]
    count = language_model.config.num_hidden_layers
    return next(module for module in decoder.modules() if isinstance(module, nn.ModuleList) and len(module) == count)


def _copies(one: Tensor, count: int) -> nn.Parameter:
    return nn.Parameter(one.detach()[None].repeat(count, *(1,) * one.dim()), requires_grad=one.requires_grad)
