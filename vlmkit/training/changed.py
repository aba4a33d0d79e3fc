"""What a stage makes of the model before it trains it: another resolution, experts; and the weights that it brings along."""

from __future__ import annotations

from functools import partial

from torch import nn

from vlmkit.architecture import Architecture
from vlmkit.experts import Experts
from vlmkit.experts_weights import Copied, drawn
from vlmkit.resolution import Resampled, at_resolution
from vlmkit.spec import SpecError
from vlmkit.training.stage import Stage
from vlmkit.weight_source import WeightSource


def changed(architecture: Architecture, stage: Stage) -> Architecture:
    """The architecture of a stage's model, for that of the one before. Raises SpecError where it cannot become that."""
    if stage.image_size is not None:
        architecture = at_resolution(architecture, stage.image_size)
    if stage.experts is not None:
        architecture = with_experts(architecture, stage.experts)
    return architecture


def with_experts(architecture: Architecture, experts: Experts) -> Architecture:
    """The same parts, FFNs of the language model turned into experts. Raises SpecError where it has others already."""
    words = architecture.language_model
    if words.experts not in (None, experts):
        raise SpecError(f"{architecture.name} has experts already ({words.experts}), and no others are made of them; leave experts out")
    return architecture.replace(language_model=words.replace(experts=experts)).validate()


def carried(weights: WeightSource, before: Architecture, after: Architecture, model: nn.Module, seed: int) -> WeightSource:
    """The weights of a model as those of what it became. model: with the shapes of afterwards. seed: of routers."""
    if before.encoder != after.encoder:
        weights = Resampled(weights, before, after, {name: tuple(value.shape) for name, value in model.named_parameters()})
    if before.language_model.experts != after.language_model.experts:
        weights = Copied(weights, model, partial(drawn, seed=seed))
    return weights
