"""LLM2CLIP's second step (Huang et al. 2024, arXiv:2411.04997, section 3): CLIP's contrast of images with captions that a language model
embeds.

The language model is frozen: its embeddings of captions are made once (`embed` of caption_contrast_module) and batches state them. Behind
them stand residual blocks and a linear layer, the adapter, as github.com/microsoft/LLM2CLIP has it (llm2clip/eva_clip/model.py, TextProj);
behind the mean of the tower's tokens stands a linear layer. The loss is CLIP's (Radford et al. 2021, arXiv:2103.00020), both ways, over the
images and captions of all processes, with a temperature that learns. Upstream reads the tower's class token through its own projection;
towers here give patches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

from vlmkit.architecture import Architecture
from vlmkit.preprocess.geometry import Size
from vlmkit.spec import SpecError
from vlmkit.training.objectives import objectives
from vlmkit.training.objectives.base import Objective

WIDE = Size(336, 672)
"""Of an image that policies cut which cut any."""


@objectives.register("image_text_contrast")
@dataclass(frozen=True, kw_only=True)
class ImageTextContrast(Objective):
    has_head: ClassVar[bool] = True

    dim: int = 1280
    """In which images and captions meet."""
    blocks: int = 4
    """Of the adapter."""
    expansion: int = 2
    """Width within a block, in widths of the language model."""
    temperature: float = 0.07
    """Before the first update."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for field, least in (("dim", 1), ("blocks", 0), ("expansion", 1)):
            if (value := getattr(self, field)) < least:
                raise SpecError(f"image_text_contrast.{field}: expected {least} or more, got {value}")
        if self.temperature <= 0:
            raise SpecError(f"image_text_contrast.temperature: expected more than 0, got {self.temperature}")

    def misfits(self, learning: Callable[[str], bool], pack: bool) -> Iterator[str]:
        yield from super().misfits(learning, pack)
        if pack:
            yield "its rows are images and captions of their own; leave pack out"
        if learning("language_model"):
            yield "captions are embedded by a language model that is frozen; leave language_model out"

    def problems(self, architecture: Architecture) -> Iterator[str]:
        """One tower, which the images go through."""
        if architecture.beside:
            yield f"it has {len(architecture.towers)} towers; leave one"
        elif (views := len(architecture.plan(WIDE).views)) > 1:
            yield f"policy {architecture.policy.kind!r} shows an image of {WIDE} in {views} views, and each image is one here; use 'squash'"
        if architecture.fusion.needs_visible:
            yield f"fusion {architecture.fusion.kind!r} looks at images from within the language model; use 'splice'"
