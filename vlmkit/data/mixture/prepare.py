"""A sample as rows take it: laid out from the sizes of its images, cut where it is too long."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from vlmkit.conversation import Conversation, pictures, read_conversation
from vlmkit.data.sample import DataError
from vlmkit.layout.laid_out import Layout, LayoutError
from vlmkit.layout.pieces import ImageTokens
from vlmkit.preprocess.geometry import Size

if TYPE_CHECKING:
    from vlmkit.processor import VLMProcessor

Overlong = Literal["cut", "reject", "raise"]
"""What becomes of a conversation that no row can hold. `cut`: it loses its last turns, a question always with its answer,
and the images that only they show, until it fits; where not even the first answer fits, it is rejected."""


class OverlongError(DataError):
    """A conversation that no row can hold, where that is an error."""


Weighing = Literal["alike", "root"]
"""What the tokens of a sample with n conversations count in the loss. `root`: each 1 / sqrt(n), so that an image of which much is said
does not outweigh the others, nor count as if little were (Molmo, arXiv:2409.17146, section 3)."""
TOO_LONG = "longer than a row"
CUT = "lost its last turns"


@dataclass(frozen=True, slots=True)
class PlannedPiece:
    """Conversations of one sample that stand in one row, and the images that they show, not yet rendered."""

    images: tuple[int, ...]
    """Numbers of the images in the sample."""
    planned: tuple[ImageTokens, ...]
    layouts: tuple[Layout, ...]
    """A span's `image` is a place in `images`."""

    @property
    def length(self) -> int:
        """Tokens of all conversations."""
        return sum(len(layout.ids) for layout in self.layouts)


Found = tuple[Layout, tuple[int, ...]]
"""A conversation laid out, and the number in the sample of each image that it shows."""


@dataclass(frozen=True, slots=True)
class Planned:
    """The pieces of a sample, and what it lost: a reason to count by, and a sentence."""

    pieces: tuple[PlannedPiece, ...]
    rejected: tuple[str, str] | None = None
    """Some of its conversations are left out, or all."""
    cut: tuple[str, str] | None = None
    """Some of its conversations lost turns."""


class Preparer:
    """Plans samples for rows of `length` tokens (None: of any)."""

    def __init__(
        self,
        processor: VLMProcessor,
        *,
        length: int | None = None,
        pack: bool = False,
        overlong: Overlong = "cut",
        weighing: Weighing = "alike",
    ) -> None:
        """pack: a piece stands in one row with others. Otherwise each conversation has a row of its own."""
        self.processor = processor
        self.length = length
        self.pack = pack
        self.overlong = overlong
        self.weighing = weighing
        self._plan_image = functools.lru_cache(maxsize=1 << 14)(processor.plan_image)

    def plan(self, conversations: Sequence[Conversation], sizes: Sequence[Size]) -> Planned:
        """Lay out conversations about images of these sizes. Raises LayoutError and ImageSizeError for what cannot be used,
        and OverlongError for what is too long where that is an error."""
        planned = [self._plan_image(size) for size in sizes]
        found: list[Found] = []
        rejected = cut = None
        for number, conversation in enumerate(conversations):
            layout, shown = self._lay_out(conversation, planned)
            if self.length is not None and len(layout.ids) > self.length:
                sentence = f"conversation {number} has {len(layout.ids)} tokens, a row holds {self.length}"
                if self.overlong == "raise":
                    raise OverlongError(f"{sentence}; give rows more room, or let it be cut")
                shorter = self._shortened(conversation, planned) if self.overlong == "cut" else None
                if shorter is None:
                    rejected = rejected or (TOO_LONG, sentence)
                    continue
                cut = cut or (CUT, sentence)
                layout, shown = shorter
            found.append((layout, shown))
        if self.weighing == "root" and len(found) > 1:
            found = [(replace(layout, weight=len(found) ** -0.5), shown) for layout, shown in found]
        if not conversations:
            rejected = ("has no conversation", "nothing is said about its images")
        return Planned(tuple([_piece(group, planned) for group in self._groups(found)]), rejected, cut)

    def _lay_out(self, conversation: Conversation, planned: Sequence[ImageTokens]) -> Found:
        """The layout, its spans numbered as the conversation shows images, and the number in the sample of each of these."""
        turns, media = read_conversation(conversation)
        shown = pictures(media)
        for number in shown:
            if type(number) is not int or not 0 <= number < len(planned):
                raise LayoutError(f"a conversation shows image {number!r:.80} of a sample that has {len(planned)}")
        spec = self.processor.spec
        layout = spec.layout.lay_out(turns, [planned[number] for number in shown], self.processor.plain_tokenizer)
        return layout, tuple(shown)

    def _shortened(self, conversation: Conversation, planned: Sequence[ImageTokens]) -> Found | None:
        """The most whole exchanges from the front that fit; None where not even the first does."""
        assert self.length is not None
        roles = [message["role"] for message in conversation]
        ends = [number for number in range(1, len(roles)) if roles[number - 1 : number + 1] == ["assistant", "user"]]
        best, low, high = None, 0, len(ends)
        while low < high:
            middle = (low + high) // 2
            tried = self._lay_out(conversation[: ends[middle]], planned)
            if len(tried[0].ids) <= self.length:
                best, low = tried, middle + 1
            else:
                high = middle
        return best

    def _groups(self, found: Sequence[Found]) -> list[list[Found]]:
        """What stands in one row: as few groups as first come, first served gives."""
        if not found:
            return []
        groups: list[list[Found]] = [[]]
        used = 0
        for layout, shown in found:
            if self.pack and self.length is not None and groups[-1] and used + len(layout.ids) > self.length:
                groups.append([])
                used = 0
            groups[-1].append((layout, shown))
            used += len(layout.ids)
        return groups


def _piece(group: Sequence[Found], planned: Sequence[ImageTokens]) -> PlannedPiece:
    """An image is encoded once, however many conversations show it."""
    numbers: set[int] = set()
    for _, shown in group:
        numbers.update(shown)
    images = tuple(sorted(numbers))
    layouts = tuple([layout if shown == images[: len(shown)] else _renumbered(layout, shown, images) for layout, shown in group])
    return PlannedPiece(images, tuple([planned[number] for number in images]), layouts)


def _renumbered(layout: Layout, shown: Sequence[int], images: Sequence[int]) -> Layout:
    """With spans numbered as the sample shows images, not as the conversation does."""
    return replace(layout, spans=tuple([span._replace(image=images.index(shown[span.image])) for span in layout.spans]))
