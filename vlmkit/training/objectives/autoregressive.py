"""AIMv2's pretraining (Fini et al. 2024, arXiv:2411.14402, section 2): each next patch is regressed, then each next word is told.

An image's patches stand before its text in one sequence, which one causal decoder reads: the language model. The tower sees a prefix of
the patches in both directions and each later patch with those before it alone, so that what stands at a patch knows nothing of the next.
The loss is the text's cross-entropy and `weight` times the squared error of pixels, of patches behind the prefix, each patch brought to
mean 0 and deviation 1 (He et al. 2021, arXiv:2111.06377). The prefix's length is drawn evenly for each image.

From memory: the weight, 0.4. The published code has the towers and not their training; this was compared with the equations.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from vlmkit.architecture import Architecture
from vlmkit.encoders.hf import TransformersViT
from vlmkit.features import Grid
from vlmkit.spec import SpecError
from vlmkit.training.objectives import objectives
from vlmkit.training.objectives.base import Objective


@objectives.register("autoregressive")
@dataclass(frozen=True, kw_only=True)
class Autoregressive(Objective):
    has_head: ClassVar[bool] = True

    weight: float = 0.4
    """Of the pixels' loss beside the text's."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.weight <= 0:
            raise SpecError(f"autoregressive.weight: expected more than 0, got {self.weight}; without pixels it is the model's own loss")

    def problems(self, architecture: Architecture) -> Iterator[str]:
        """The tower has to be one of transformers' without a class token, and each patch one visual token that stands in the row."""
        encoder, connector = architecture.encoder, architecture.connector
        if architecture.beside:
            yield f"it has {len(architecture.towers)} towers; leave one"
            return
        if not isinstance(encoder, TransformersViT) or "class_token" in {*encoder.__dataclass_fields__}:
            yield f"encoder {encoder.kind!r} takes no prefix of patches; use a tower without a class token, such as 'aimv2'"
        merge = connector.merge
        grid = Grid(1, 2 * merge, 3 * merge)
        if connector.towers not in (1, None) or connector.grid_out(grid) != grid:
            yield f"connector {connector.kind!r} makes of {grid} patches {connector.grid_out(grid)} tokens; use one that keeps them, 'mlp'"
        if architecture.fusion.needs_visible:
            yield f"fusion {architecture.fusion.kind!r} puts no visual token into the row; use 'splice'"
