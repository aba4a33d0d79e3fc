"""Text in which images are written as published templates write them, put down with the images in their places."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from vlmkit.layout.laid_out import LayoutError, Turn
from vlmkit.layout.pieces import ImageTokens

if TYPE_CHECKING:
    from vlmkit.layout.image_layout import ImageLayout
    from vlmkit.layout.writer import Writer


class Placing:
    """Images in the order in which they are given, and films in theirs, where a layout's `written` strings stand in trusted text."""

    def __init__(self, writer: Writer, layout: ImageLayout, images: Sequence[ImageTokens]) -> None:
        self.writer, self.layout, self.images = writer, layout, images
        self.written = layout.written
        films = [number for number, image in enumerate(images) if self.is_film(image)]
        pictures = [number for number in range(len(images)) if number not in films]
        self.waiting = dict(zip(self.written, (pictures, films), strict=False))
        self.cut = re.compile(f"({'|'.join(map(re.escape, sorted(self.written, key=len, reverse=True)))})")
        self.begins_behind = layout.begins_behind([Turn("user", tuple(range(len(images))))])
        self.count = len(images)

    def is_film(self, image: ImageTokens) -> bool:
        """Whether it is written as a film, and not as a picture is."""
        return image.is_film and len(self.written) > 1

    def begin(self, begin: str) -> None:
        """What begins it all, unless it stands behind the last image."""
        self.behind = begin
        if self.begins_behind is None:
            self.writer.begin(begin)

    def plain(self, text: str) -> None:
        self.writer.plain(text)

    def trusted(self, text: str) -> None:
        for number, piece in enumerate(self.cut.split(text)):
            if number % 2:
                self.image(piece)
            else:
                self.writer.trusted(piece)

    def image(self, written: str) -> None:
        waiting = self.waiting[written]
        if not waiting:
            raise LayoutError(f"the prompt has more places {written!r} than the {self.count} image(s) that were given")
        number = waiting.pop(0)
        self.writer.image(number, self.images[number], self.layout.pieces(self.images[number]), "", "")
        if number == self.begins_behind:
            self.writer.trusted(self.behind)

    def finish(self) -> None:
        """Raises LayoutError where an image found no place."""
        left = sum(map(len, self.waiting.values()))
        if left:
            raise LayoutError(f"the prompt has {self.count - left} place(s) {self.written[0]!r} for {self.count} image(s)")
