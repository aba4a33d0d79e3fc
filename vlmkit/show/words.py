"""What stands beside a picture: sizes, captions, numbers, the legend."""

from __future__ import annotations

from collections.abc import Iterable

from vlmkit.architecture import Architecture
from vlmkit.features import Grid
from vlmkit.page import ACCENT, FAINT, MUTED, Colour, Stat
from vlmkit.preprocess.geometry import Box, Render, Size
from vlmkit.show.mosaic import FADED, Lines, covered
from vlmkit.show.sight import Sight, placed

UNCHANGED = "unchanged"
"""Said of an aspect ratio."""


def across(size: Size) -> str:
    """Width first."""
    return _by(size.width, size.height)


def _by(across: int, down: int) -> str:
    return f"{across} \N{MULTIPLICATION SIGN} {down}"


def caption(part: Render, source: Size) -> str:
    """What is done to the original for one render."""
    frame = frame_of(part, source).size
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


def _same(sizes: Iterable[Size]) -> str:
    return " and ".join(dict.fromkeys(across(size) for size in sizes))


def grids_across(grids: tuple[Grid, ...]) -> str:
    """Columns first, equal ones once."""
    texts = dict.fromkeys(_by(grid.columns, grid.rows) + (f" + {grid.prefix}" if grid.prefix else "") for grid in grids)
    return ", ".join(texts)


def stats(sight: Sight) -> list[Stat]:
    """The numbers below the title."""
    plan, count = sight.plan, sight.architecture.layout.places(sight.tokens)
    kept = placed(sight.architecture, sight.tokens)
    left, learned = int((~kept).sum()), count - int(kept.sum())
    each = "" if len(sight.views) == 1 else " of each view"
    ratios = dict.fromkeys(stretch(frame_of(part, plan.source).size, part.resize) for part in plan.renders)
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


def legend(sight: Sight, lines: Lines) -> list[tuple[int, Colour, str]]:
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


def who_sees(model: Architecture) -> str:
    """Heading of a view."""
    if len(model.towers) == 1:
        return "The encoder sees"
    return "The encoders see" if len(model.cutters) == 1 else f"The first of {len(model.towers)} encoders sees"


def parts(model: Architecture) -> str:
    """Kinds of its parts, in the order in which an image travels."""
    return "  →  ".join(kind for family, kind in model.kinds().items() if family != "layout")


def frame_of(part: Render, source: Size) -> Box:
    """What is resampled."""
    return part.frame or Box(0, 0, source.height, source.width)
