"""From a stage and modules to what learns: who requires a gradient, which groups and optimisers there are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from vlmkit.encoders.unused import freeze_unused
from vlmkit.spec import SpecError
from vlmkit.training.muon import Muon
from vlmkit.training.paths import Names, refuse_idle, refuse_unknown
from vlmkit.training.stage import Stage


class Claimed(NamedTuple):
    """A parameter that learns, and the path of the stage that says how fast."""

    path: str
    part: str
    name: str
    parameter: nn.Parameter


def adapters_of(model: nn.Module) -> set[int] | None:
    """Of a model that PEFT wrapped, the parameters that PEFT lets learn, by their ids; None of any other model, of which all may learn."""
    if not hasattr(model, "peft_config"):
        return None
    return {id(parameter) for parameter in model.parameters() if parameter.requires_grad}


def prepare_parts(stage: Stage, parts: Mapping[str, nn.Module], adapters: set[int] | None = None) -> None:
    """Freeze what has no rate: no gradient is computed, kept or applied, and nothing random or running is left on. Where there are
    adapters, they alone learn. Raises SpecError for a path of `stage.learn` that holds no parameter, naming those that do, or none that
    longer paths leave it."""
    refuse_unknown(stage.learn, parts)
    refuse_idle(stage.learn, parts)
    for name, part in parts.items():
        learning = _learning(stage, name, part)
        for own, parameter in part.named_parameters():
            parameter.grad = None
            # One by one: a weight of four bits below an adapter cannot even be asked to learn.
            parameter.requires_grad_(own in learning and (adapters is None or id(parameter) in adapters))
        freeze_unused(part)
        # Recomputing activations is tied to training mode in transformers, and a frozen part needs it all the same
        # where gradients pass through it.
        recomputed = any(getattr(module, "gradient_checkpointing", False) for module in part.modules())
        claimed = {id(parameter) for own, parameter in part.named_parameters() if own in learning}
        _set_mode(part, claimed, inherited=stage.learns(name), everything=recomputed)


def refuse_unclaimed(model: nn.Module, parts: Mapping[str, nn.Module]) -> None:
    """Raise SpecError naming parameters of the model that belong to none of the parts: no stage could say whether they learn."""
    claimed = {id(parameter) for part in parts.values() for parameter in part.parameters()}
    if unclaimed := [name for name, parameter in model.named_parameters() if id(parameter) not in claimed]:
        shown = ", ".join(unclaimed[:10]) + (f" and {len(unclaimed) - 10} more" if len(unclaimed) > 10 else "")
        raise SpecError(f"{shown} belong to no part of {', '.join(parts)}, so no stage can say whether they learn; put them into one")


def claimed_parameters(stage: Stage, parts: Mapping[str, nn.Module]) -> Iterator[Claimed]:
    """All that learns; a shared parameter once, with the part that comes first."""
    seen: set[int] = set()
    for part, module in parts.items():
        learning = _learning(stage, part, module)
        for name, parameter in module.named_parameters():
            if name in learning and parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                yield Claimed(learning[name], part, name, parameter)


def learning_parameters(stage: Stage, parts: Mapping[str, nn.Module]) -> Iterator[tuple[str, str, nn.Parameter]]:
    """(part, name, parameter) of all that learns, in the order of `claimed_parameters`."""
    for _, part, name, parameter in claimed_parameters(stage, parts):
        yield part, name, parameter


def build_optimizers(stage: Stage, parts: Mapping[str, nn.Module], *, fused: bool) -> list[torch.optim.Optimizer]:
    """AdamW for everything, or Muon for the blocks' matrices beside it. Each group carries its `path`, the `part` that this is in, and
    its `peak` rate."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for path, part, name, parameter in claimed_parameters(stage, parts):
        dimensions = len(_shape(parameter))
        if stage.optimizer == "muon" and part != "head" and dimensions == 2 and _inside_a_block(name):
            kind = "muon, fused" if name.split(".")[-1] == "in_proj_weight" or ".qkv." in name else "muon"
        else:
            kind = "matrices" if dimensions > 1 else "vectors"
        rate = stage.peak(path) * (stage.muon_scale if kind.startswith("muon") else 1)
        decay = 0.0 if kind == "vectors" else stage.decay(path)
        of_group = {"params": [], "part": part, "path": path, "lr": rate, "peak": rate, "weight_decay": decay}
        group = groups.setdefault((kind, path), of_group)
        if kind == "muon, fused":
            group["pieces"] = 3
        group["params"].append(parameter)
    adamw = [group for (kind, _), group in groups.items() if not kind.startswith("muon")]
    muon = [group for (kind, _), group in groups.items() if kind.startswith("muon")]
    optimizers: list[torch.optim.Optimizer] = []
    if adamw:
        optimizers.append(torch.optim.AdamW(adamw, betas=stage.betas, fused=fused))
    if muon:
        optimizers.append(Muon(muon))
    return optimizers


def set_rates(optimizers: list[Any], stage: Stage, step: int) -> dict[str, float]:
    """Set every group to its rate in update `step` of the stage; returns the highest rate of each path."""
    rates: dict[str, float] = {}
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            path = group.get("path", group["part"])  # DeepSpeed loads groups as they were saved, and they had no path once
            group["lr"] = group["peak"] * stage.factor(step, path)
            rates[path] = max(float(group["lr"]), rates.get(path, 0.0))
    return rates


def _learning(stage: Stage, part: str, module: nn.Module) -> dict[str, str]:
    """The path by which each parameter of a part learns; without those that are frozen."""
    rates = stage.paths
    claims = Names(part, module).claims(rates) if stage.learns(part) else {}
    return {name: path for name, path in claims.items() if rates[path] is not None}


def _set_mode(module: nn.Module, claimed: set[int], *, inherited: bool, everything: bool) -> None:
    """Training mode for modules whose parameters all learn, evaluation mode for others; those without parameters are as what holds them."""
    parameters = list(module.parameters())
    learns = all(id(parameter) in claimed for parameter in parameters) if parameters else inherited
    if everything or learns or not any(id(parameter) in claimed for parameter in parameters):
        module.train(everything or learns)
        return
    module.training = False
    for child in module.children():
        _set_mode(child, claimed, inherited=False, everything=False)


def _inside_a_block(name: str) -> bool:
    """Blocks are numbered: 'transformer.resblocks.0.mlp.c_fc.weight', 'model.layers.3.self_attn.q_proj.weight', 'mlp.0.weight'."""
    return any(piece.isdigit() for piece in name.split("."))


def _shape(parameter: Tensor) -> tuple[int, ...]:
    """Under ZeRO-3 a parameter is an empty vector that remembers the shape of the whole."""
    return tuple(getattr(parameter, "ds_shape", parameter.shape))
