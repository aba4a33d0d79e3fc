"""Frames of a film one after the other, each behind the time at which it is seen (VideoLLaMA 3, arXiv:2501.13106).

    Time 0.0s:<v><v><v><v>,Time 1.0s:<v>,Time 2.0s:<v><v>

Of a frame only those tokens are placed whose pixels changed since the frame before (the paper's differential frame pruner); a frame
in which nothing did keeps its first. A picture is a plain run.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import ClassVar

from vlmkit.layout import layouts
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.pieces import ImageTokens, Piece, Trusted, Visual
from vlmkit.spec import SpecError


@layouts.register("timestamps")
@dataclass(frozen=True, kw_only=True)
class Timestamps(TokenLayout):
    """Frames without a time of their own are not placed: so a film of one frame may be shown to the encoder as two."""

    video_placeholder: str | None = None
    """The reserved token that fills the places of a film's visual tokens; None: the placeholder, as of a picture."""
    stamp: str = "Time {:.1f}s:"
    """Before each frame; the braces are its time in seconds, as Python formats numbers."""
    between: str = ","
    """Between two frames."""
    drop_unchanged: float | None = None
    """Tokens of a film whose normalised pixels differ from those of the frame before by at most this many 255ths, on average, are left
    out, but one a frame stays; None: all are placed."""

    partial: ClassVar[bool] = True
    films: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        try:
            stamped = {self.stamp.format(second) for second in (0.0, 1000.0)}
        except (ValueError, LookupError) as error:
            raise SpecError(f"timestamps.stamp: {self.stamp!r} is no format of one number ({error}); write 'Time {{:.1f}}s:'") from None
        if len(stamped) == 1:
            raise SpecError(f"timestamps.stamp: {self.stamp!r} does not say the time; write 'Time {{:.1f}}s:'")
        if self.drop_unchanged is not None and self.drop_unchanged < 0:
            raise SpecError(f"timestamps.drop_unchanged: expected 0 or more, got {self.drop_unchanged}")

    @property
    def unchanged(self) -> float | None:
        return self.drop_unchanged

    def image_pieces(self, image: ImageTokens) -> tuple[Piece, ...]:
        return tuple(self._frames(image)) if image.is_film else (Visual(0, image.count),)

    @property
    def written(self) -> tuple[str, ...]:
        return (self.placeholder,) if self.video_placeholder is None else (self.placeholder, self.video_placeholder)

    def required_specials(self) -> tuple[str, ...]:
        films = () if self.video_placeholder is None else (self.video_placeholder,)
        return (*super().required_specials(), *films)

    def _frames(self, image: ImageTokens) -> Iterator[Piece]:
        start = 0
        for number, (second, length) in enumerate(zip(image.seconds, frame_lengths(image), strict=False)):
            yield Trusted((self.between if number else "") + self.stamp.format(second))
            for first, run in kept_runs(image.kept, start, length):
                yield Visual(first, run, self.video_placeholder)
            start += length


def frame_lengths(image: ImageTokens) -> Iterator[int]:
    """Visual tokens of each frame; a kept class token stands before the first frame of its view."""
    for grid in image.grids:
        yield grid.prefix + grid.rows * grid.columns
        yield from [grid.rows * grid.columns] * (grid.frames - 1)


def kept_runs(kept: bytes | None, start: int, length: int) -> Iterator[tuple[int, int]]:
    """(first, length) of each run of kept ones among the tokens `start` to `start + length`."""
    if kept is None:
        yield start, length
        return
    for is_kept, run in groupby(range(start, start + length), key=lambda token: kept[token] != 0):
        tokens = list(run)
        if is_kept:
            yield tokens[0], len(tokens)
