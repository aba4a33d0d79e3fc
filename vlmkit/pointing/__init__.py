"""Points, boxes and masks in words: what a model says of places in a picture, as values in pixels, and back.

    style        written                                              numbers
    molmo        <point x="10.5" y="20.1" alt="cup">cup</point>       percent, 0 to 100, one digit
    qwen         <ref>cup</ref><box>(100,200),(300,400)</box>         thousandths, 0 to 1000
    paligemma    <loc0102><loc0204><loc0409><loc0511> cup             bins, 0 to 1023, y before x

Words -> `parse` -> pixels of the picture -> `to_view` -> pixels of what the model sees, and back by `to_picture` and `write`. What UI-TARS
says has a module of its own, `vlmkit.actions`. Standard library only.
"""

from vlmkit.pointing.scales import Scale, from_pixels, to_pixels
from vlmkit.pointing.tasks import paligemma_prompt
from vlmkit.pointing.through import to_picture, to_view, views_showing
from vlmkit.pointing.values import Box, Item, Point, PointingError
from vlmkit.pointing.words import Style, parse, write

__all__ = [
    "Box",
    "Item",
    "Point",
    "PointingError",
    "Scale",
    "Style",
    "from_pixels",
    "paligemma_prompt",
    "parse",
    "to_picture",
    "to_pixels",
    "to_view",
    "views_showing",
    "write",
]
