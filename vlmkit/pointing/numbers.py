"""Numbers in words, checked: what every style shares."""

from __future__ import annotations

from vlmkit.pointing.scales import ENDS, Scale, from_pixels, to_pixels
from vlmkit.pointing.values import Item, PointingError
from vlmkit.preprocess.geometry import Size


def read_place(x: float, y: float, scale: Scale, size: Size, words: str) -> tuple[float, float]:
    """Numbers that a model said -> pixels. Raises PointingError, with the words, for numbers that are not of the scale."""
    end = ENDS[scale]
    for number in (x, y):
        if not 0 <= number <= end:
            raise PointingError(f"{brief(words)} says {number:g}, expected numbers from 0 to {end}")
    return to_pixels(x, y, scale, size)


def rounded(number: float, digits: int) -> float:
    """As numpy rounds, and with it those who wrote training data: ties of the shifted number to the even one, 0.05 to 0.0."""
    shift: int = 10**digits
    # Adding 0 makes nothing of -0.
    return round(number * shift) / shift + 0.0


def write_place(x: float, y: float, scale: Scale, size: Size, digits: int = 0) -> tuple[float, float]:
    """Pixels -> the nearest numbers that a model can say. Raises PointingError for a place outside of the picture."""
    numbers = from_pixels(x, y, scale, size)
    found = rounded(numbers[0], digits), rounded(numbers[1], digits)
    if not all(0 <= number <= ENDS[scale] for number in found):
        raise PointingError(f"({x:g}, {y:g}) is outside of the {size.width} x {size.height} pixels of the picture and cannot be said")
    return found


def check_label(label: str, forbidden: str) -> None:
    """Raises PointingError for a label that would not be read back as it is."""
    if label != label.strip() or any(letter in label for letter in forbidden):
        signs = " ".join(repr(letter) for letter in forbidden)
        raise PointingError(f"a label is written without {signs} and without space around it, got {brief(label)}")


def wrong_kind(style: str, kind: str, item: Item) -> PointingError:
    return PointingError(f"{style} writes {kind}, got {item!r}")


def brief(text: str) -> str:
    shown = repr(text)
    return shown if len(shown) <= 100 else f"{shown[:97]}..."
