"""Images first: a plain run for each image, and the token that begins the text behind the last of them.

PaliGemma (arXiv:2407.07726) begins with its images; big_vision and transformers put <bos> between them and the prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmkit.layout import layouts
from vlmkit.layout.laid_out import Turn
from vlmkit.layout.run import Run


@layouts.register("images_first")
@dataclass(frozen=True, kw_only=True)
class ImagesFirst(Run):
    """The template's beginning stands behind the last image before the first answer, or before everything where there is
    none."""

    def begins_behind(self, turns: Sequence[Turn]) -> int | None:
        return last_image(turns)


def last_image(turns: Sequence[Turn]) -> int | None:
    """Number of the last image before the first answer."""
    last = None
    for turn in turns:
        if turn.role == "assistant":
            break
        last = next((part for part in reversed(turn.content) if isinstance(part, int)), last)
    return last
