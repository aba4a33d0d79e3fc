"""Images first, in rows: the token that begins the text stands behind the last image (Fuyu, adept.ai/blog/fuyu-8b).

|SPEAKER| |SPEAKER| |NEWLINE| |SPEAKER| |SPEAKER| |NEWLINE| <s> What is this?
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vlmkit.layout import layouts
from vlmkit.layout.images_first import last_image
from vlmkit.layout.laid_out import Turn
from vlmkit.layout.rows import Rows


@layouts.register("rows_first")
@dataclass(frozen=True, kw_only=True)
class RowsFirst(Rows):
    """The template's beginning stands where `images_first` has it."""

    def begins_behind(self, turns: Sequence[Turn]) -> int | None:
        return last_image(turns)
