"""The page of a photograph: the original, every view with its patches and tokens, the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

from vlmkit.page import GAP, WIDTH, Page, Panel
from vlmkit.pointing.values import Item
from vlmkit.preprocess.geometry import Render, Size
from vlmkit.show.mosaic import Lines, boards, faded
from vlmkit.show.points import MARK, marked
from vlmkit.show.sight import Sight
from vlmkit.show.words import across, caption, frame_of, legend, parts, stats, who_sees

VIEW_SIDE = 1080
"""Pixels that the longer side of the views may take when they are enlarged; larger ones are drawn as they are."""
PHOTO_SIDE = 620
"""Width of the original at most where it stands beside a view; at least where there is room."""


def draw(sight: Sight, title: str, said: Sequence[Item] = ()) -> Image.Image:
    """The page. `title` is what to call the image, such as the name of its file; what is `said` of it, in pixels of the original, is drawn
    on the original: of the views every pixel stays visible."""
    plan, patch = sight.plan, sight.architecture.encoder.patch_size
    scale = max(1, VIEW_SIDE // max(max(render.canvas.height, render.canvas.width) for render in plan.renders))
    lines = Lines.between(patch * scale)
    panels = []
    for number, (part, board) in enumerate(zip(plan.renders, boards(sight, scale, lines), strict=True), 1):
        heading = who_sees(sight.architecture)
        if len(plan.renders) > 1:
            heading += f", {number} of {len(plan.renders)}"
        panels.append(Panel(heading, caption(part, plan.source), Image.fromarray(board)))
    original = marked(_fit(_seen(sight), *_room(panels[0].picture)), said, plan.source)
    photo = Panel("Original", f"{across(plan.source)} pixels", original, outlined=True)
    lines_and_marks = [*legend(sight, lines), *([(3, MARK, f"said of the original: {len(said)}")] if said else [])]
    return Page([photo, *panels]).draw(sight.architecture.name, title, stats(sight), lines_and_marks, parts(sight.architecture))


def _seen(sight: Sight) -> Image.Image:
    """The original; what no view shows of it is faded."""
    photo = sight.photo
    boxes = [_shown(part, sight.plan.source) for part in sight.plan.renders]
    board = faded(photo)
    for top, bottom, left, right in boxes:
        board[top:bottom, left:right] = photo[top:bottom, left:right]
    return Image.fromarray(board)


def _shown(part: Render, source: Size) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the source that lie on the canvas."""
    frame = frame_of(part, source)

    def edges(corner: int, canvas: int, resized: int, start: int, length: int, side: int) -> tuple[int, int]:
        first, last = max(0, -corner), min(resized, canvas - corner)
        return max(0, start + first * length // resized), min(side, start - (-last * length // resized))

    vertical = edges(part.top, part.canvas.height, part.resize.height, frame.top, frame.height, source.height)
    return *vertical, *edges(part.left, part.canvas.width, part.resize.width, frame.left, frame.width, source.width)


def _room(view: Image.Image) -> tuple[int, int]:
    """Width and height for the original: beside the first view, or above it where that is too wide to share a row."""
    beside = min(PHOTO_SIDE, WIDTH - GAP - view.width)
    if beside < PHOTO_SIDE * 2 / 3:
        return max(PHOTO_SIDE, view.width), PHOTO_SIDE * 3 // 4
    return beside, max(PHOTO_SIDE, view.height)


def _fit(photo: Image.Image, width: int, height: int) -> Image.Image:
    """As large as fits: enlarged by a whole factor, or shrunk, but to no less than a line that can be seen."""
    factor = min(width / photo.width, height / photo.height)
    if factor >= 1:
        return photo.resize((photo.width * int(factor), photo.height * int(factor)), Image.Resampling.NEAREST)
    least = 4
    return photo.resize((max(least, round(photo.width * factor)), max(least, round(photo.height * factor))), Image.Resampling.LANCZOS)
