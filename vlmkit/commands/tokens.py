"""Count the visual tokens that a photo or a film costs under every named model, without building any.

Sizes are width x height, grids columns x rows, of a film frames x columns x rows. Of a photo only the header is read.
"""

from __future__ import annotations

import json
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from vlmkit.architecture import Architecture
from vlmkit.commands import UsageError
from vlmkit.commands.choice import MODEL, add_exchange_options, add_language_model_option, add_plugin_option, matching
from vlmkit.commands.film import add_video_option, named_clips
from vlmkit.commands.photo import across, add_size_option, named_sizes
from vlmkit.commands.picture import add_force_option, check_output, write_picture
from vlmkit.commands.table import print_table
from vlmkit.commands.terminal import say
from vlmkit.features import Grid, GridError
from vlmkit.layout.pieces import ImageTokens
from vlmkit.preprocess.geometry import Clip, ImagePlan, ImageSizeError, Size

COLUMNS = ("model", "visual tokens", "resized", "views", "patches", "token grid")
WHY_NOT = "why not (height x width, rows x columns)"
"""Reasons are those of the Python functions, which write the height first."""


class TokensError(ValueError):
    """Images that cannot be counted, each on a line."""


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("photos", metavar="PHOTO", nargs="*", help="picture files")
    add_size_option(parser)
    add_video_option(parser)
    parser.add_argument("--model", metavar="MODEL", default="*", help=f"only models that match, such as 'univa*'; or {MODEL}")
    add_exchange_options(parser)
    add_language_model_option(parser)
    add_plugin_option(parser)
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print JSON in place of tables")
    form.add_argument("--sheet", metavar="FILE.png", help="draw how every model cuts the one photo, in place of tables")
    add_force_option(parser)


def run(arguments: Namespace) -> None:
    if arguments.sheet is not None:
        _draw_sheet(arguments)
        return
    named: list[tuple[str, Size | Clip | Exception]] = [*named_sizes(arguments), *named_clips(arguments.videos)]
    models = matching(arguments)
    sizes = [(name, size) for name, size in named if not isinstance(size, Exception)]
    if arguments.json:
        say(json.dumps([image_json(name, size, models) for name, size in named], indent=2))
    else:
        _print_tables(sizes, models)
    failed = [str(size) for _, size in named if isinstance(size, Exception)]
    for name, size in sizes:
        whys = [why for model in models if isinstance(why := image_tokens(model, size), str)]
        if len(whys) == len(models):
            failed.append(f"{name}: {whys[0] if len(whys) == 1 else 'no model takes it, and each says why not'}")
    if failed:
        raise TokensError("\n".join(failed))


def _print_tables(sizes: Sequence[tuple[str, Size | Clip]], models: Sequence[Architecture]) -> None:
    for number, (name, size) in enumerate(sizes):
        if number:
            say()
        rows = [_row(model, size) for model in models]
        note = any(row[-1] for row in rows)
        measured = str(size) if isinstance(size, Clip) else across(size)
        title = name if name == measured else f"{name}, {measured}"
        columns = (*COLUMNS, WHY_NOT) if note else COLUMNS
        print_table(columns, [row[: len(columns)] for row in rows], title=title, right=("visual tokens",))


def _draw_sheet(arguments: Namespace) -> None:
    if len(arguments.photos) != 1 or arguments.sizes or arguments.videos:
        raise UsageError("a sheet is of one photo: vlmkit tokens photo.jpg --sheet sheet.png")
    output, photo = Path(arguments.sheet), arguments.photos[0]
    models = matching(arguments)
    check_output(output, Path(photo), arguments.force)
    from vlmkit.preprocess.images import decode
    from vlmkit.sheet import alike, draw_sheet

    pixels = decode(photo)
    size = Size(*pixels.shape[:2])
    cuts = alike([(model, image_tokens(model, size)) for model in models])
    write_picture(draw_sheet(pixels, cuts, Path(photo).name), output)
    say(output)


def image_tokens(model: Architecture, size: Size | Clip) -> ImageTokens | str:
    """The tokens of an image or a film, or why there are none."""
    if problems := model.problems():
        return " ".join(problems)
    try:
        return model.image_tokens(model.plan_clip(size) if isinstance(size, Clip) else model.plan(size))
    except (ImageSizeError, GridError) as error:
        return str(error)


def _row(model: Architecture, size: Size | Clip) -> tuple[str, ...]:
    tokens = image_tokens(model, size)
    if isinstance(tokens, str):
        return (model.name, *["-"] * 5, tokens)
    columns: list[dict[str, None]] = [{}, {}, {}]
    for tower, plan in model.cuts(tokens.plan):
        patches = model.cut(plan, tower)
        seen = (map(across, _resized(plan)), map(across, _views(plan, patches)), map(grid_across, patches))
        for column, of in zip(columns, seen, strict=True):
            column[counted(of)] = None
    grids = counted(grid_across(grid) for grid in tokens.grids)
    return (model.name, f"{model.layout.places(tokens):,}", *(" + ".join(column) for column in columns), grids, "")


def _resized(plan: ImagePlan) -> list[Size]:
    return [render.resize for render in plan.renders]


def _views(plan: ImagePlan, patches: tuple[Grid, ...]) -> tuple[Size, ...]:
    """The size of each view that an encoder sees: of a film those of each frame, where it sees frames as pictures."""
    return plan.views * (len(patches) // len(plan.views))


def image_json(name: str, size: Size | Clip | Exception, models: Sequence[Architecture]) -> dict[str, Any]:
    """One image or film with the row of every model; without any where it cannot be read."""
    if isinstance(size, Exception):
        return {"image": name, "width": None, "height": None, "why_not": str(size), "models": []}
    if isinstance(size, Clip):
        length = {"seconds": size.seconds, "fps": size.fps, "width": size.size.width, "height": size.size.height}
        return {"video": name, **length, "models": [as_json(model, size) for model in models]}
    return {"image": name, "width": size.width, "height": size.height, "models": [as_json(model, size) for model in models]}


def as_json(model: Architecture, size: Size | Clip) -> dict[str, Any]:
    """One model's row with named sides, so that nobody has to know an order."""
    tokens = image_tokens(model, size)
    if isinstance(tokens, str):
        return {"model": model.name, "visual_tokens": None, "why_not": tokens}
    plan = tokens.plan
    first, *beside = [_seen_json(model.cut(cut, tower), cut, tokens) for tower, cut in model.cuts(plan)]
    return {
        "model": model.name,
        "visual_tokens": model.layout.places(tokens),
        **({"frames": plan.frames} if plan.times else {}),
        **first,
        **({"beside": beside} if beside else {}),
    }


def _seen_json(patches: tuple[Grid, ...], plan: ImagePlan, tokens: ImageTokens) -> dict[str, Any]:
    """What the towers that read one set of pixels see."""
    return {
        "resized": [{"width": size.width, "height": size.height} for size in _resized(plan)],
        "views": [
            {"width": view.width, "height": view.height, "patches": grid_json(grid), "tokens": grid_json(merged)}
            for view, grid, merged in zip(_views(plan, patches), patches, tokens.grids, strict=True)
        ],
    }


def grid_json(grid: Grid) -> dict[str, int]:
    return {"frames": grid.frames, "rows": grid.rows, "columns": grid.columns, "prefix": grid.prefix}


def grid_across(grid: Grid) -> str:
    """Columns first, like a width: '36x26'."""
    frames = f"{grid.frames}x" if grid.frames != 1 else ""
    return f"{frames}{grid.columns}x{grid.rows}" + (f"+{grid.prefix}" if grid.prefix else "")


def counted(items: Iterable[str]) -> str:
    """['448x448', '448x448', '336x448'] -> '2 of 448x448, 336x448'."""
    return ", ".join(item if number == 1 else f"{number} of {item}" for item, number in Counter(items).items())
