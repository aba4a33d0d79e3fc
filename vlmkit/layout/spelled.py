"""A conversation as one string: what other libraries ask a chat template for, cut into question and answers, and give back as text.

Special tokens are spelled in it and images are written as published templates write them, so the string says everything only where no
text of the conversation spells a special token itself. One that does is refused: in a string nobody could tell the two apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from vlmkit.layout.laid_out import LayoutError, Turn

if TYPE_CHECKING:
    from vlmkit.layout.image_layout import ImageLayout
    from vlmkit.layout.specials import Specials


@dataclass(frozen=True)
class Unseen:
    """An image of which nothing is known but that it is there."""

    is_film: bool


def spelled(template: Any, layout: ImageLayout, turns: Sequence[Turn], films: Sequence[bool], specials: Specials, **how: bool) -> str:
    """The string that a template makes of a conversation with as many images as `films` has entries, of which True is a film.
    `layout.lay_out_text` lays it out again. Raises LayoutError where a text spells a special token."""
    writer = _Spelling(layout, specials)
    images: list[Any] = [Unseen(film) for film in films]
    template.write(writer, _Unpieced(layout), turns, images, **how)
    return writer.string()


class _Unpieced:
    """A layout that writes nothing for an image."""

    def __init__(self, layout: ImageLayout) -> None:
        self._layout = layout

    def pieces(self, image: Any) -> tuple[()]:
        return ()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._layout, name)


class _Spelling:
    """Takes what a Writer takes, and collects strings."""

    def __init__(self, layout: ImageLayout, specials: Specials) -> None:
        self.layout, self.specials = layout, specials
        self.found: list[str] = []
        self.meant = 0
        """Special tokens that the template wrote."""

    def plain(self, text: str) -> None:
        if self.count(text):
            raise LayoutError(
                f"the text {text[:60]!r} spells a special token: as a part of a string it would become one; call the processor with "
                "conversations, in which a text may spell anything"
            )
        self.found.append(text)

    def trusted(self, text: str) -> None:
        self.meant += self.count(text)
        self.found.append(text)

    def begin(self, text: str) -> None:
        self.trusted(text)

    def begin_answer(self) -> None:
        pass

    def end_of_turn(self, after: str) -> None:
        self.trusted(after)

    def image(self, number: int, image: Unseen, pieces: Any, before: str, after: str) -> None:
        written = self.layout.written
        self.trusted(before + written[-1 if image.is_film else 0] + after)

    def count(self, text: str) -> int:
        return sum(isinstance(piece, int) for piece in self.specials.split(text))

    def string(self) -> str:
        """Everything. Raises LayoutError where texts beside each other spell what neither does."""
        text = "".join(self.found)
        if self.count(text) != self.meant:
            raise LayoutError(
                "texts of the conversation spell a special token together with what stands beside them: call the processor with "
                "conversations, in which a text may spell anything"
            )
        return text
