"""Words of a style -> points and boxes, and back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, get_args

from vlmkit.pointing import molmo, paligemma, qwen
from vlmkit.pointing.values import Item, PointingError
from vlmkit.preprocess.geometry import Size

Style = Literal["molmo", "qwen", "paligemma"]
STYLES: tuple[Style, ...] = get_args(Style)


class _Way(NamedTuple):
    parse: Callable[[str, Size], Sequence[Item]]
    write: Callable[[Sequence[Item], Size], str]


_WAYS = {
    "molmo": _Way(molmo.parse, molmo.write),
    "qwen": _Way(qwen.parse, qwen.write),
    "paligemma": _Way(paligemma.parse, paligemma.write),
}


def parse(text: str, style: Style, size: Size) -> list[Item]:
    """The points and boxes that a text says, in its order, in pixels of a picture of `size`.

    What is none is left alone. Raises PointingError, with the words, for a point, box or mask whose numbers are none of the style's: out of
    range, too few, or the wrong way round. The published models speak of the whole picture, whatever they see of it; for one that speaks of
    a view, `size` is the view's, and `to_picture` goes on from there.
    """
    return list(_way(style).parse(text, size))


def write(items: Sequence[Item], style: Style, size: Size) -> str:
    """What a model would say of points or boxes in pixels of a picture of `size`, to the nearest number that it can say.

    They are said in the order given; Molmo's training data has points sorted by x, then y, and "There are none." where there are none.
    Raises PointingError for what the style has no words for: a box in molmo's, a point in the others', a mask in qwen's, a place outside of
    the picture, a label that would not be read back.
    """
    return _way(style).write(items, size)


def _way(style: str) -> _Way:
    if style not in _WAYS:
        raise PointingError(f"{style!r} is no style, expected one of {', '.join(STYLES)}")
    return _WAYS[style]
