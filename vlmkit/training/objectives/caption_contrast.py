"""LLM2CLIP's first step (Huang et al. 2024, arXiv:2411.04997, section 3): two captions of one image are drawn together, others apart.

Supervised SimCSE (Gao et al. 2021, arXiv:2104.08821) over a language model whose tokens see each other in both directions, as in LLM2Vec
(BehnamGhader et al. 2024, arXiv:2404.05961): a caption's embedding is the mean of its tokens' last hidden states, and the loss the
cross-entropy of each first caption's cosines with all second ones over a temperature. The candidates are those of all processes. The paper
trains low-rank adapters so; `Stage.adapters` has them. Nothing learns beside the model, and its LM head does not: a stage that trains the
whole language model says `learn={"language_model": rate, "language_model.head": None}`.

From memory: the temperature, SimCSE's. The published training code of this step was not to be had; this was compared with the equations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from vlmkit.architecture import Architecture
from vlmkit.fusion.splice import Splice
from vlmkit.spec import SpecError
from vlmkit.training.objectives import objectives
from vlmkit.training.objectives.base import Objective


@objectives.register("caption_contrast")
@dataclass(frozen=True, kw_only=True)
class CaptionContrast(Objective):
    temperature: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.temperature <= 0:
            raise SpecError(f"caption_contrast.temperature: expected more than 0, got {self.temperature}")

    def misfits(self, learning: Callable[[str], bool], pack: bool) -> Iterator[str]:
        yield from super().misfits(learning, pack)
        if pack:
            yield "its rows are captions of their own; leave pack out"
        if learning("encoder") or learning("connector") or learning("fusion"):
            yield "it shows no image; leave encoder, connector and fusion out"

    def problems(self, architecture: Architecture) -> Iterator[str]:
        """The fusion has to hand a mask of the caption's own on to the language model."""
        if not isinstance(architecture.fusion, Splice):
            yield f"fusion {architecture.fusion.kind!r} makes masks of its own, but captions are seen in both directions; use 'splice'"
