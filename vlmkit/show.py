"""One picture of what a model sees of a photograph: the photograph, every view with its patches and tokens, the numbers.

`see` takes the way of an image up to the encoder, `draw` puts it on a page. Views are drawn from the uint8 patches that the
encoder gets, enlarged by a whole factor; lines stand between patches, so that every pixel is there and none is covered. What the
layout leaves out of the sequence (visual tokens over padding, say) is faded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmkit.architecture import Architecture
from vlmkit.features import Grid
from vlmkit.layout.pieces import ImageTokens, Visual
from vlmkit.page import ACCENT, FAINT, GAP, MUTED, WIDTH, Colour, Page, Panel, Stat
from vlmkit.pointing.values import Item
from vlmkit.preprocess.geometry import Box, ImagePlan, Render, Size
from vlmkit.preprocess.images import decode
from vlmkit.preprocess.pixels import render
from vlmkit.show_points import MARK, marked

Pixels = NDArray[np.uint8]

VIEW_SIDE = 1080
"""Pixels that the longer side of the views may take when they are enlarged; larger ones are drawn as they are."""
FADED: Colour = (191, 191, 191)
"""What black, the usual padding, fades to."""
UNCHANGED = "unchanged"
"""Said of an aspect ratio."""
PHOTO_SIDE = 620
"""Width of the original at most where it stands beside a view; at least where there is room."""


@dataclass(frozen=True)
class Sight:
    """What a model sees of one image: pixels of every view in the order of the plan, and their grids."""

    architecture: Architecture
    photo: Pixels
    tokens: ImageTokens
    views: tuple[Pixels, ...]
    patches: tuple[Grid, ...]

    @property
    def plan(self) -> ImagePlan:
        return self.tokens.plan


def placed(architecture: Architecture, tokens: ImageTokens) -> NDArray[np.bool_]:
    """Of each visual token of an image, as the connector returns them, whether the layout gives it a place, or it is looked at."""
    if architecture.layout.looked_at:
        return np.ones(tokens.count, bool)
    found = np.zeros(tokens.count, bool)
    for piece in architecture.layout.pieces(tokens):
        if isinstance(piece, Visual):
            found[piece.start : piece.start + piece.length] = True
    return found


def see(image: Any, architecture: Architecture) -> Sight:
    """Open, plan and render an image as the processor does. Raises ImageError, ImageSizeError, GridError."""
    photo = decode(image)
    plan = architecture.plan(Size(*photo.shape[:2]))
    patch, policy = architecture.encoder.patch_size, architecture.policy
    tokens = architecture.image_tokens(plan)
    values, _ = render(photo, plan, patch=patch, resample=policy.resample, antialias=policy.antialias)
    grids = plan.grids(patch)
    ends = np.cumsum([grid.tokens for grid in grids])
    views = [_unpatchify(part, grid, patch) for part, grid in zip(np.split(values.numpy(), ends[:-1]), grids, strict=True)]
    return Sight(architecture, photo, tokens, tuple(views), grids)


def draw(sight: Sight, title: str, said: Sequence[Item] = ()) -> Image.Image:
    """The page. `title` is what to call the image, such as the name of its file; what is `said` of it, in pixels of the original, is drawn
    on the original: of the views every pixel stays visible."""
    plan, patch = sight.plan, sight.architecture.encoder.patch_size
    scale = max(1, VIEW_SIDE // max(max(render.canvas.height, render.canvas.width) for render in plan.renders))
    lines = Lines.between(patch * scale)
    panels = []
    for number, (part, board) in enumerate(zip(plan.renders, boards(sight, scale, lines), strict=True), 1):
        heading = _who_sees(sight.architecture)
        if len(plan.renders) > 1:
            heading += f", {number} of {len(plan.renders)}"
        panels.append(Panel(heading, _caption(part, plan.source), Image.fromarray(board)))
    original = marked(_fit(_seen(sight), *_room(panels[0].picture)), said, plan.source)
    photo = Panel("Original", f"{across(plan.source)} pixels", original, outlined=True)
    legend = [*_legend(sight, lines), *([(3, MARK, f"said of the original: {len(said)}")] if said else [])]
    return Page([photo, *panels]).draw(sight.architecture.name, title, _stats(sight), legend, parts(sight.architecture))


@dataclass(frozen=True)
class Lines:
    """Widths in pixels of the lines between patches and between visual tokens."""

    patch: int
    token: int

    @classmethod
    def between(cls, side: int) -> Lines:
        """Lines for patches that are drawn `side` pixels wide."""
        return cls(max(1, side // 28), min(5, max(2, side // 9)))


def boards(sight: Sight, scale: int, lines: Lines) -> list[Pixels]:
    """A picture of each render of the plan: its views, enlarged by a whole factor, side by side as they were cut."""
    patch, merged = sight.architecture.encoder.patch_size, sight.tokens.grids
    kept = np.split(placed(sight.architecture, sight.tokens), np.cumsum([grid.tokens for grid in merged])[:-1])
    mosaics = iter(
        mosaic(view, patches, covered(patches, tokens), patch, scale, lines, mask[tokens.prefix :].reshape(-1, tokens.columns))
        for view, patches, tokens, mask in zip(sight.views, sight.patches, merged, kept, strict=True)
    )
    return [_lay_tiles(part, [next(mosaics) for _ in part.tiles], gap=4 * lines.token) for part in sight.plan.renders]


def covered(patches: Grid, tokens: Grid) -> tuple[int, int] | None:
    """Rows and columns of patches that one visual token stands for; None where tokens stand on no grid of patches, as
    the queries of a resampler (a grid of one row) do."""
    if patches.rows % tokens.rows or patches.columns % tokens.columns:
        return None
    rows, columns = patches.rows // tokens.rows, patches.columns // tokens.columns
    return (rows, columns) if tokens.rows > 1 or rows in (1, columns) else None


def mosaic(
    view: Pixels,
    grid: Grid,
    token: tuple[int, int] | None,
    patch: int,
    scale: int,
    lines: Lines,
    kept: NDArray[np.bool_] | None = None,
) -> Pixels:
    """The view enlarged by a whole factor, its patches moved apart by lines: wide ones around visual tokens, thin ones
    within. Nothing of the view is covered. Tokens that are not `kept` (rows, columns) are faded, with no wide lines."""
    vertical = _spread(grid.rows, token[0] if token else 0, patch * scale, lines)
    horizontal = _spread(grid.columns, token[1] if token else 0, patch * scale, lines)
    pixels, inner = view.repeat(scale, axis=0).repeat(scale, axis=1), np.ix_(vertical.places, horizontal.places)
    board = np.full((vertical.length, horizontal.length, 3), FAINT, np.uint8)
    board[vertical.wide] = ACCENT
    board[:, horizontal.wide] = ACCENT
    board[inner] = pixels
    if kept is None or token is None or kept.all():
        return board
    without = np.full_like(board, FAINT)
    without[inner] = _faded(pixels)
    for row, column in np.argwhere(kept):
        cell = vertical.cells[row], horizontal.cells[column]
        without[cell] = board[cell]
    return without


def _faded(pixels: Pixels) -> Pixels:
    return (pixels // 4 + FADED[0]).astype(np.uint8)


class _Side(NamedTuple):
    """Along one side of a mosaic."""

    places: NDArray[np.int64]
    """Where each pixel of the patches goes."""
    length: int
    wide: NDArray[np.int64]
    """What wide lines take of it."""
    cells: list[slice]
    """What each visual token takes of it, with the lines on both of its edges."""


def _spread(count: int, together: int, side: int, lines: Lines) -> _Side:
    """`count` patches, of which so many belong together to a visual token; 0 where tokens stand on no grid."""
    before = [lines.token if together and number % together == 0 else lines.patch for number in range(count + 1)]
    before[0] = before[-1] = lines.token
    starts = np.cumsum(before)[:-1] + side * np.arange(count)
    places = (starts[:, None] + np.arange(side)).ravel()
    length = int(sum(before) + side * count)
    line = np.ones(length, bool)
    line[places] = False
    edges = [0, *(starts + side)]
    wide = [np.arange(edge, edge + width) for edge, width in zip(edges, before, strict=True) if together and width == lines.token]
    ends = range(together, count + 1, together) if together else ()
    cells = [slice(edges[end - together], edges[end] + before[end]) for end in ends]
    return _Side(places, length, np.concatenate(wide) if wide else np.arange(0), cells)


def _unpatchify(values: Pixels, grid: Grid, patch: int) -> Pixels:
    """(rows * columns, 3*p*p) -> (rows * p, columns * p, 3)."""
    cells = values.reshape(grid.rows, grid.columns, 3, patch, patch)
    return cells.transpose(0, 3, 1, 4, 2).reshape(grid.rows * patch, grid.columns * patch, 3)


def _lay_tiles(part: Render, mosaics: list[Pixels], gap: int) -> Pixels:
    """Tiles moved apart, in the rows and columns in which they lie on the canvas; overlapping ones are each drawn whole."""
    tops, lefts = sorted({tile.top for tile in part.tiles}), sorted({tile.left for tile in part.tiles})
    cells = [(tops.index(tile.top), lefts.index(tile.left)) for tile in part.tiles]
    if len(set(cells)) < len(cells):  # two tiles begin at the same pixel: one after the other
        cells = [(0, number) for number in range(len(mosaics))]
    heights, widths = [0] * (max(row for row, _ in cells) + 1), [0] * (max(column for _, column in cells) + 1)
    for (row, column), picture in zip(cells, mosaics, strict=True):
        heights[row], widths[column] = max(heights[row], picture.shape[0]), max(widths[column], picture.shape[1])
    board = np.full((sum(heights) + gap * (len(heights) - 1), sum(widths) + gap * (len(widths) - 1), 3), 255, np.uint8)
    for (row, column), picture in zip(cells, mosaics, strict=True):
        top, left = sum(heights[:row]) + gap * row, sum(widths[:column]) + gap * column
        board[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return board


def _seen(sight: Sight) -> Image.Image:
    """The original; what no view shows of it is faded."""
    photo = sight.photo
    boxes = [_shown(part, sight.plan.source) for part in sight.plan.renders]
    faded = _faded(photo)
    for top, bottom, left, right in boxes:
        faded[top:bottom, left:right] = photo[top:bottom, left:right]
    return Image.fromarray(faded)


def _shown(part: Render, source: Size) -> tuple[int, int, int, int]:
    """Top, bottom, left, right of the source that lie on the canvas."""
    frame = _frame(part, source)

    def edges(corner: int, canvas: int, resized: int, start: int, length: int, side: int) -> tuple[int, int]:
        first, last = max(0, -corner), min(resized, canvas - corner)
        return max(0, start + first * length // resized), min(side, start - (-last * length // resized))

    vertical = edges(part.top, part.canvas.height, part.resize.height, frame.top, frame.height, source.height)
    return *vertical, *edges(part.left, part.canvas.width, part.resize.width, frame.left, frame.width, source.width)


def _frame(part: Render, source: Size) -> Box:
    """What is resampled."""
    return part.frame or Box(0, 0, source.height, source.width)


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


def across(size: Size) -> str:
    """Width first."""
    return _by(size.width, size.height)


def _by(across: int, down: int) -> str:
    return f"{across} \N{MULTIPLICATION SIGN} {down}"


def _caption(part: Render, source: Size) -> str:
    frame = _frame(part, source).size
    steps = []
    if frame != source:
        whole = frame.height >= source.height and frame.width >= source.width
        steps.append(f"{'padded' if whole else 'cut'} to {across(frame)}")
    if part.via or part.resize != frame:
        changed = stretch(frame, part.resize)
        ratio = "" if changed == UNCHANGED else f" ({changed})"
        steps.append(f"resized to {' and then to '.join(dict.fromkeys(map(across, (*part.via, part.resize))))}{ratio}")
    if part.canvas != part.resize or part.top or part.left:
        steps.append(f"placed on {across(part.canvas)}")
    if len(part.tiles) > 1:
        steps.append(f"cut into {len(part.tiles)} views of {_same(tile.size for tile in part.tiles)}")
        if part.views != tuple(tile.size for tile in part.tiles):
            steps.append(f"enlarged to {_same(part.views)}")
    elif part.tiles[0].size != part.canvas:
        steps.append(f"trimmed to {across(part.tiles[0].size)}")
    return ", ".join(steps) or "as it is"


def _same(sizes: Any) -> str:
    return " and ".join(dict.fromkeys(across(size) for size in sizes))


def grids_across(grids: tuple[Grid, ...]) -> str:
    """Columns first, equal ones once."""
    texts = dict.fromkeys(_by(grid.columns, grid.rows) + (f" + {grid.prefix}" if grid.prefix else "") for grid in grids)
    return ", ".join(texts)


def _stats(sight: Sight) -> list[Stat]:
    plan, count = sight.plan, sight.architecture.layout.places(sight.tokens)
    kept = placed(sight.architecture, sight.tokens)
    left, learned = int((~kept).sum()), count - int(kept.sum())
    each = "" if len(sight.views) == 1 else " of each view"
    ratios = dict.fromkeys(stretch(_frame(part, plan.source).size, part.resize) for part in plan.renders)
    return [
        Stat("visual tokens", f"{count:,}", ACCENT),
        *([Stat("left out by the layout", f"{left:,} of {kept.size:,}")] if left else []),
        *([Stat("learned embeddings added", f"{learned:,}")] if learned else []),
        Stat("original", across(plan.source)),
        Stat("resized", _same(part.resize for part in plan.renders)),
        *([Stat("views", f"{len(sight.views)}")] if each else []),
        Stat(f"patch grid{each}", grids_across(sight.patches)),
        Stat(f"token grid{each}", grids_across(sight.tokens.grids)),
        Stat("pixels per token", _rounded(sum(view.pixels for view in plan.views) / count)),
        Stat("original pixels per token", _rounded(plan.source.pixels / count)),
        Stat("aspect ratio", " and ".join(ratios)),
    ]


def _rounded(number: float) -> str:
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def stretch(before: Size, after: Size) -> str:
    """How resizing changed the aspect ratio: 640 x 480 -> 504 x 364 is '3.8 % wider'."""
    ratio = (after.width * before.height) / (after.height * before.width)
    percent = 100 * (max(ratio, 1 / ratio) - 1)
    if percent < 0.05:
        return UNCHANGED
    return f"{percent:,.1f} % {'wider' if ratio > 1 else 'taller'}"


def _legend(sight: Sight, lines: Lines) -> list[tuple[int, Colour, str]]:
    """Width, colour and meaning of each kind of line, and of what is faded."""
    patch = sight.architecture.encoder.patch_size
    words = f"patch of {_by(patch, patch)} pixels"
    token = covered(sight.patches[0], sight.tokens.grids[0])
    if token is None:
        return [(lines.patch, FAINT, words), (0, MUTED, "the visual tokens stand on no grid of patches")]
    rows, columns = token
    left = [] if placed(sight.architecture, sight.tokens).all() else [(4 * lines.token, FADED, "visual tokens that the layout leaves out")]
    if rows == columns == 1:
        return [(lines.token, ACCENT, f"{words}, one visual token each"), *left]
    return [(lines.patch, FAINT, words), (lines.token, ACCENT, f"visual token of {_by(columns, rows)} patches"), *left]


def _who_sees(model: Architecture) -> str:
    if len(model.towers) == 1:
        return "The encoder sees"
    return "The encoders see" if len(model.cutters) == 1 else f"The first of {len(model.towers)} encoders sees"


def parts(model: Architecture) -> str:
    """Kinds of its parts, in the order in which an image travels."""
    return "  →  ".join(kind for family, kind in model.kinds().items() if family != "layout")
