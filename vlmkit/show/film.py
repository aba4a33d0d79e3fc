"""One picture of what a model is shown of a film: its sampled frames with their times, and what they cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vlmkit.architecture import Architecture
from vlmkit.layout.pieces import ImageTokens
from vlmkit.page import ACCENT, INK, Page, Panel, Stat, write_text
from vlmkit.preprocess.geometry import Clip
from vlmkit.preprocess.images import Pixels
from vlmkit.preprocess.sampling import Sampling
from vlmkit.preprocess.video import open_video
from vlmkit.show.words import across, grids_across, parts

MOST = 60
"""Frames that are drawn; of more, so many evenly among them."""
CELL, TALLEST = 260, 400
"""Width of a frame, and its height at most."""
COLUMNS, SPACE, TYPE = 6, 14, 17


@dataclass(frozen=True)
class FilmSight:
    """What a model is shown of one film."""

    architecture: Architecture
    clip: Clip
    tokens: ImageTokens
    drawn: tuple[int, ...]
    """Numbers of the shown frames that are drawn."""
    frames: tuple[Pixels, ...]
    """These, in the size in which they are drawn."""


def see_film(source: Any, architecture: Architecture, sampling: Sampling | None = None) -> FilmSight:
    """Open, sample and plan a film as the processor does. Raises VideoError, ImageSizeError, GridError."""
    video = open_video(source)
    plan = architecture.policy.plan_clip(video.size, video.shown(sampling or architecture.sampling or Sampling()))
    tokens = architecture.image_tokens(plan)
    drawn = Sampling(frames=MOST, multiple=1).indices(plan.frames, 1.0)
    scale = min(CELL / video.size.width, TALLEST / video.size.height)
    size = max(1, round(video.size.width * scale)), max(1, round(video.size.height * scale))
    frames = video.at([plan.times[number] for number in drawn])
    return FilmSight(architecture, video.clip, tokens, drawn, tuple(np.asarray(Image.fromarray(frame).resize(size)) for frame in frames))


def draw_film(sight: FilmSight, title: str) -> Image.Image:
    """The page. `title` is what to call the film, such as the name of its file."""
    plan = sight.tokens.plan
    some = f"; {len(sight.drawn)} of them are drawn" if len(sight.drawn) < plan.frames else ""
    caption = f"{plan.frames} of {sight.clip.frames:,} frames, at seconds from the first{some}"
    page = Page([Panel("The encoder is shown", caption, _sheet(sight))])
    return page.draw(sight.architecture.name, title, _stats(sight), [], parts(sight.architecture))


def _sheet(sight: FilmSight) -> Image.Image:
    """Frames row by row, each above its time."""
    height, width = sight.frames[0].shape[:2]
    line = TYPE + 10
    columns = min(COLUMNS, len(sight.frames))
    rows = -(-len(sight.frames) // columns)
    cell = max(width, CELL // 2)
    sheet = Image.new("RGB", (columns * (cell + SPACE) - SPACE, rows * (height + line + SPACE) - SPACE), "white")
    pen = ImageDraw.Draw(sheet)
    for place, (number, frame) in enumerate(zip(sight.drawn, sight.frames, strict=True)):
        row, column = divmod(place, columns)
        left, top = column * (cell + SPACE), row * (height + line + SPACE)
        sheet.paste(Image.fromarray(frame), (left, top))
        write_text(pen, left, top + height + 4, f"{sight.tokens.plan.times[number]:.2f} s", TYPE, INK, cell)
    return sheet


def _stats(sight: FilmSight) -> list[Stat]:
    model, plan, tokens = sight.architecture, sight.tokens.plan, sight.tokens
    count = model.layout.places(tokens)
    return [
        Stat("visual tokens" + ("" if model.layout.unchanged is None else ", at most"), f"{count:,}", ACCENT),
        Stat("frames shown", f"{plan.frames:,} of {sight.clip.frames:,}"),
        Stat("seconds", f"{sight.clip.seconds:.1f}"),
        Stat("frames a second", f"{sight.clip.fps:g}"),
        Stat("original", across(plan.source)),
        Stat("resized", " and ".join(dict.fromkeys(across(render.resize) for render in plan.renders))),
        *([Stat("views of a frame", f"{len(plan.views)}")] if len(plan.views) > 1 else []),
        Stat("token grid of a frame", grids_across(tokens.grids)),
        Stat("tokens a frame", f"{count / plan.frames:,.0f}"),
        Stat("tokens a second", f"{count / sight.clip.seconds:,.0f}"),
    ]
