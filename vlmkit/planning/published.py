"""Stages whose numbers somebody published, and stages as everybody has them.

UNIVA-VL's are from its model card (README of Olmo-3.1-UNIVA-VL, Apache-2.0): stage 1 trains the merger alone, stage 2 everything, on
6,202,182 images with 340M text tokens; fine-tuning takes 164,602 images with 3.8M text tokens. How many of the images stage 1 saw is not
published: a tenth is assumed, as LLaVA-1.5 took 558,128 for its connector (arXiv:2310.03744).
"""

from __future__ import annotations

from dataclasses import dataclass

from vlmkit.architecture import PARTS


@dataclass(frozen=True, kw_only=True)
class KnownStage:
    name: str
    learns: tuple[str, ...]
    images: int | None = None
    text_tokens: int | None = None
    """Of the whole stage."""
    source: str = ""

    @property
    def text_an_image(self) -> int | None:
        return None if self.images is None or self.text_tokens is None else round(self.text_tokens / self.images)


CUSTOMARY = (
    KnownStage(name="align", learns=("connector", "fusion")),
    KnownStage(name="pretrain", learns=PARTS),
    KnownStage(name="sft", learns=PARTS),
)
"""Of any model."""

_CARD = "the model card of Olmo-3.1-UNIVA-VL"
UNIVA_VL = (
    KnownStage(
        name="align",
        learns=("connector",),
        images=620_218,
        text_tokens=34_000_000,
        source=f"{_CARD}; that stage 1 sees a tenth of the 6,202,182 images and 340M text tokens is assumed",
    ),
    KnownStage(name="pretrain", learns=PARTS, images=6_202_182, text_tokens=340_000_000, source=_CARD),
    KnownStage(name="sft", learns=PARTS, images=164_602, text_tokens=3_800_000, source=_CARD),
)
PUBLISHED = {"univa-vl": UNIVA_VL}


def known_stages(model: str) -> tuple[KnownStage, ...]:
    """Those of a named model, also of one whose parts were exchanged (univa-vl+mlp)."""
    return PUBLISHED.get(model.partition("+")[0], CUSTOMARY)
