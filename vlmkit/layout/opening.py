"""Images stand right behind the token that begins a sequence, before the first turn and its role.

Prismatic (Karamcheti et al. 2024, arXiv:2402.07865) puts patches between <s> and the prompt, whatever the prompt says; so do its
descendants, OpenVLA (arXiv:2406.09246) among them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmkit.layout import layouts
from vlmkit.layout.laid_out import Turn
from vlmkit.layout.run import Run


@layouts.register("opening")
@dataclass(frozen=True, kw_only=True)
class Opening(Run):
    """Images of the first message open the sequence; those of later ones stand where they are."""

    def opening(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        return images_of_first_message(turns)


def images_of_first_message(turns: Sequence[Turn]) -> tuple[int, ...]:
    """Numbers of the images of the user's first message."""
    first = next((turn for turn in turns if turn.role == "user"), None)
    return () if first is None else tuple(part for part in first.content if isinstance(part, int))
