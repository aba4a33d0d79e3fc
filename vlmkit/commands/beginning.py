"""What a training begins from: parts by name, or the directory of a model that was trained before."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from vlmkit.architecture import Architecture
from vlmkit.checkpoint_directory import checkpoint_directory
from vlmkit.commands.choice import described
from vlmkit.zoo import list_models

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from vlmkit.training.blueprint import Blueprint


@dataclass(frozen=True)
class Beginning:
    architecture: Architecture
    """With the parts that were exchanged."""
    directory: str | None
    """Of the checkpoint whose tokenizer it has, unless its language model was exchanged; None: it is a named model's or JSON's."""
    weights: str | None
    """As `vlmkit.build` takes them; also a published directory."""

    def make(self, seed: int, dtype: str) -> tuple[Blueprint, PreTrainedTokenizerBase | None]:
        """The model, and the tokenizer of a directory. Raises SpecError where weights are of other parts."""
        from vlmkit.build import build_processor, load
        from vlmkit.checkpoints import model_type_of
        from vlmkit.training.blueprint import OfArchitecture, OfModule

        parts = OfArchitecture(self.architecture, weights=self.weights, seed=seed, dtype=dtype)
        if self.directory is None:
            return parts, None
        if model_type_of(self.directory) == "vlmkit":
            return parts, build_processor(self.directory).tokenizer
        # Its weights have other names, which its family knows: it is read whole, and so is its tokenizer.
        model, processor = load(self.directory, dtype=dtype)
        return OfModule(model) if self.weights == self.directory else parts, processor.tokenizer


def beginning(model: str, architecture: Architecture, weights: str | None) -> Beginning:
    """Of `--model` and what it was with the parts that were exchanged: a directory has weights of its own where it has all its parts.

    Raises CheckpointError for the directory of a run that has no checkpoint yet.
    """
    if model in list_models() or not os.path.isdir(model):
        return Beginning(architecture, None, weights)
    directory, there = os.fspath(checkpoint_directory(model)), described(model)
    own = directory if architecture.language_model == there.language_model else None
    return Beginning(architecture, own, directory if weights is None and architecture == there else weights)
