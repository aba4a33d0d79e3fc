"""The model of a run from stage to stage: what it is made from, where a stage reads its weights, what a stage leaves to the next one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn

from vlmkit.architecture import PARTS, Architecture
from vlmkit.recompute import recompute
from vlmkit.spec import SpecError
from vlmkit.training.adapted import NewAdapters, weights_of
from vlmkit.training.adapter_files import save_adapters
from vlmkit.training.adapters import add_adapters, is_adapter, merge_adapters
from vlmkit.training.blueprint import Blueprint, OfModule
from vlmkit.training.changed import carried, changed
from vlmkit.training.engines.base import Engine, fill, whole_shares
from vlmkit.training.kernels import use_liger
from vlmkit.training.optimizers import adapters_of, prepare_parts, refuse_unclaimed
from vlmkit.training.stage import Stage
from vlmkit.training.states import SavedState, StateWeights
from vlmkit.weight_source import HeldWeights, WeightSource, values_of


class Lineage:
    """Engines that hold the model whole keep one object through all stages; others make their shares anew for each, from the last state."""

    def __init__(self, blueprint: Blueprint, engine: Engine, state: SavedState | None, seed: int) -> None:
        """state: the newest of the run. seed: of adapters."""
        self.engine, self.seed = engine, seed
        self.model: Any = None
        """With today's weights; of an engine that spreads them, the last stage's share of it."""
        self._blueprint, self._state = blueprint, state
        if not engine.spread:
            self._hold(blueprint)
        if state is not None:
            if (architecture := _architecture(state)) is not None:
                self._resize(architecture)
            if not engine.spread and not state.position.get("stage"):
                self._fill(state)
        self._peft = adapters_of(self.model) if self.model is not None else None

    def place(self, stage: Stage, head: nn.Module | None) -> SavedState | None:
        """Put the model of a stage on the engine; returns the state from before it or within it that the run goes on from, if any."""
        if self._blueprint.architecture is not None:
            self._resize(changed(self._blueprint.architecture, stage))
        state, self._state = self._state, None
        self.model = self.engine.place(
            self._blueprint, lambda model: self._weights(stage, model, state), lambda model: self._prepare(stage, model, head)
        )
        return state

    def architecture(self, stage: Stage) -> Architecture:
        """Of the model in a stage. Raises SpecError where the model is no VLM."""
        if self._blueprint.architecture is None:
            raise SpecError(f"stage {stage.name!r} has an objective, which only vlmkit's own models are trained for")
        return changed(self._blueprint.architecture, stage)

    def parts(self, head: nn.Module | None) -> dict[str, nn.Module]:
        return _parts(self.model, head)

    def leave(self, stage: Stage, state: SavedState, adapters: Path) -> None:
        """What a finished stage leaves: its state, and its adapters merged into the weights. adapters: where these are written alone."""
        if stage.adapters and self.engine.processes.main:
            saved = StateWeights(state)
            save_adapters(self.model, adapters, {name: values_of(saved, name) for name in saved.names() if is_adapter(name)})
        if self.engine.spread:
            self._state = state
        elif stage.adapters:
            merge_adapters(self.model)
            self._fill(state)

    def _hold(self, blueprint: Blueprint) -> None:
        self.model = blueprint.whole().to(self.engine.processes.device)
        self._blueprint = OfModule(self.model)

    def _fill(self, state: SavedState) -> None:
        fill(self.model, whole_shares(self.model), weights_of(state))

    def _resize(self, architecture: Architecture) -> None:
        """Go on with the model at the resolution and with the experts of the architecture, where these are others."""
        if architecture == self._blueprint.architecture:
            return
        self._blueprint = self._blueprint.at(architecture, self.seed)
        if not self.engine.spread:
            self._hold(self._blueprint)

    def _weights(self, stage: Stage, model: nn.Module, state: SavedState | None) -> WeightSource:
        """Where the weights of a stage are read, for the model as it was prepared."""
        if state is not None and state.position.get("stage") == stage.name:
            return StateWeights(state)
        if not self.engine.spread:
            return HeldWeights(model.state_dict())
        if state is None:
            before = self._blueprint.weights()
        else:
            before, then, now = weights_of(state), _architecture(state), self._blueprint.architecture
            if then is not None and now is not None and then != now:
                before = carried(before, then, now, model, self.seed)
        return NewAdapters(before, model, self.seed, self.engine.processes.device) if stage.adapters else before

    def _prepare(self, stage: Stage, model: Any, head: nn.Module | None) -> None:
        """Say what learns, before weights are spread."""
        learning = self._peft
        if stage.adapters:
            add_adapters(model, stage.adapters, self.seed)
            adapted = {path.split(".")[0] for path in stage.adapters}
            learning = {id(value) for name, value in model.named_parameters() if is_adapter(name) or name.split(".")[0] not in adapted}
        if head is not None and learning is not None:
            learning = learning | {id(value) for value in head.parameters()}
        parts = _parts(model, head)
        refuse_unclaimed(model, parts)
        if stage.kernels == "liger":
            use_liger(model, self.engine.processes.device)
        if stage.recompute:
            recompute(model)
        elif any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            recompute(model, False)
        model.train()
        prepare_parts(stage, parts, learning)


def _parts(model: nn.Module, head: nn.Module | None) -> dict[str, nn.Module]:
    return {part: getattr(model, part) for part in PARTS} | ({"head": head} if head is not None else {})


def _architecture(state: SavedState) -> Architecture | None:
    """That of the model whose state it is; None of one that is no VLM."""
    found = state.position["model"]
    return None if found is None else Architecture.from_dict(found["architecture"])


def described(model: nn.Module) -> dict[str, Any] | None:
    """What a model is made anew from, beside its weights; None of one that is no VLM."""
    spec = getattr(getattr(model, "config", None), "spec", None)
    return None if spec is None else {"architecture": spec.to_dict()}
