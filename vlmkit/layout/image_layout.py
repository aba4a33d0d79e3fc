"""How a layout writes images: the pieces of one, the text around it, and how many places it takes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

from vlmkit.layout.laid_out import Turn
from vlmkit.layout.pieces import ImageTokens, Learned, Piece, Visual


class ImageLayout:
    """What templates ask of a layout. A subclass says which pieces stand for one image."""

    placeholder: str
    """The tokenizer's reserved token whose id fills the places of visual tokens."""
    after_image: str
    """Template text after each image."""

    learned: ClassVar[tuple[str, ...]] = ()
    """Names of learned embeddings that stand among the visual tokens; the model has a vector of width D_lm for each."""
    partial: ClassVar[bool] = False
    """Whether visual tokens may be left out (those over padding, say)."""
    films: ClassVar[bool] = False
    """Whether `image_pieces` takes films whose frames are pictures to the encoder; else they are laid out frame by frame."""
    placed: ClassVar[bool] = True
    """Whether visual tokens take places in the sequence, all of them or some."""
    looked_at: ClassVar[bool] = False
    """Whether visual tokens are looked at by cross-attention, all of them or some. Each is placed or looked at."""
    tags_views: ClassVar[bool] = False
    """Whether views that are looked at have text of their own (`tags`), which is looked at with them."""
    neighbours_together: ClassVar[bool] = False
    """Whether words see all of several images that are `Seen` one right behind the other, and not the last of them alone."""

    @property
    def unchanged(self) -> float | None:
        """Visual tokens of a film whose pixels changed by no more than this since the frame before have `ImageTokens.kept` 0: the mean
        absolute difference of normalised pixels, in 255ths. None: all are kept."""
        return None

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        """The pieces of one image. Every visual token appears in them exactly once, or at most once where `partial`."""
        raise NotImplementedError

    def pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        """The pieces of an image or a film. Frames that an encoder sees as pictures are laid out as pictures, one behind the other, unless
        the layout has a form of its own for `films`."""
        plan, views = image.plan, len(image.plan.views)
        if self.films or self.looked_at or plan.frames == 1 or len(image.grids) != views * plan.frames:
            return self.image_pieces(image)
        found: list[Piece] = []
        start, still = 0, replace(plan, times=())
        for first in range(0, len(image.grids), views):
            frame = ImageTokens(still, image.grids[first : first + views])
            if image.kept is not None:
                frame = replace(frame, kept=image.kept[start : start + frame.count])
            for piece in self.image_pieces(frame):
                found.append(replace(piece, start=piece.start + start) if isinstance(piece, Visual) else piece)
            start += frame.count
        return tuple(found)

    def tags(self, image: ImageTokens) -> tuple[str, ...]:
        """Where `tags_views`: for each view of an image the text that is looked at with its visual tokens; "" for none."""
        return ()

    @property
    def some_tags(self) -> tuple[str, ...]:
        """Some of those texts, the longest that are usual among them: a batch has room for as many tokens as the longest takes."""
        return ()

    def around_image(self, first: bool, last: bool) -> tuple[str, str]:
        """Template text before and after an image that is the first or the last thing of its message, or neither."""
        return "", self.after_image

    def before_image(self, number: int) -> str:
        """Template text before the image of this number, of those of the conversation, from 0."""
        return ""

    def begins_behind(self, turns: Sequence[Turn]) -> int | None:
        """Number of the image behind which the template's beginning stands; None: before everything."""
        return None

    def opening(self, turns: Sequence[Turn]) -> tuple[int, ...]:
        """Numbers of images that stand behind the template's beginning, before the first turn, wherever the conversation has them."""
        return ()

    def places(self, image: ImageTokens) -> int:
        """Places that an image takes in the sequence, its visual tokens and learned embeddings, without the text around; or, where it is
        looked at, all of it or in part, as many visual tokens as it has."""
        if self.looked_at:
            return image.count
        return self.in_sequence(image)

    def in_sequence(self, image: ImageTokens) -> int:
        """The same without what is looked at."""
        pieces = self.pieces(image)
        return sum(piece.length if isinstance(piece, Visual) else isinstance(piece, Learned) for piece in pieces)

    @property
    def written(self) -> tuple[str, ...]:
        """What published templates write in the place of an image, and behind it what they write in that of a film, where that differs."""
        return (self.placeholder,)
