"""Text that views have of their own where they are looked at, as token ids of a batch."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from vlmkit.layout.base import TokenLayout
from vlmkit.layout.pieces import ImageTokens
from vlmkit.tokenizer import PlainTokenizer


@dataclass(frozen=True, eq=False)
class Tags:
    """The tags of a layout in the tokens of a tokenizer."""

    layout: TokenLayout
    tokenizer: PlainTokenizer

    @functools.cached_property
    def width(self) -> int:
        """Tokens of the longest usual tag: batches are equally wide, so that others may put one behind the other."""
        return max((len(self.ids(text)) for text in self.layout.some_tags), default=1)

    def ids(self, text: str) -> list[int]:
        """Of one tag, in which special tokens are meant."""
        pieces = self.tokenizer.specials.split(text)
        return [token for piece in pieces for token in ([piece] if isinstance(piece, int) else self.tokenizer.encode(piece, first=False))]

    def rows(self, images: Sequence[ImageTokens]) -> Tensor:
        """(V, L): token ids of the text of each view, -1 behind it."""
        found = [self.ids(text) for image in images for text in self.layout.tags(image)]
        width = max(self.width, *map(len, found))
        return torch.tensor([ids + [-1] * (width - len(ids)) for ids in found])
