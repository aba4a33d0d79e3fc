"""Draw what a model sees of a photo, or is shown of a film: views with patches and visual tokens, or frames with their times.

The pixels of a view are those that the encoder gets, every one of them; grid lines stand between patches and hide none. A film is a file
whose name says so (clip.mp4), or any with --video. With --steps nothing is drawn: it is printed how the image policy resizes, places and
cuts a photo, of which only the header is read, or an image of a --size; sizes are width x height, corners left, top. With --points what
a model said of places in a photo is drawn on it.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path

from vlmkit.commands import UsageError
from vlmkit.commands.choice import MODEL, add_exchange_options, add_language_model_option, add_plugin_option, chosen
from vlmkit.commands.film import is_film
from vlmkit.commands.photo import add_size_option, named_sizes
from vlmkit.commands.picture import add_force_option, check_output, write_picture
from vlmkit.commands.steps import print_steps
from vlmkit.commands.terminal import say
from vlmkit.pointing.values import Item
from vlmkit.pointing.words import STYLES, parse
from vlmkit.preprocess.geometry import Size


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("photos", metavar="PHOTO", nargs="*", help="a picture or a video file")
    parser.add_argument("--steps", action="store_true", help="print what is resized, placed and cut, instead of drawing it")
    add_size_option(parser)
    parser.add_argument("--json", action="store_true", help="with --steps: print them as JSON, heights and widths by name")
    parser.add_argument("--video", action="store_true", help="take the file for a film, such as a GIF; of a name that says so it is taken")
    parser.add_argument("--points", metavar="TEXT", help="draw the points or boxes that this text says on the photo")
    parser.add_argument("--style", choices=STYLES, help="with --points: whose words alone are read; all of them unless given")
    parser.add_argument("--model", metavar="MODEL", default="univa-vl", help=f"%(default)s unless given: {MODEL}")
    add_exchange_options(parser)
    add_language_model_option(parser)
    add_plugin_option(parser)
    parser.add_argument("-o", "--output", metavar="FILE.png", help="where to write the picture; PHOTO.NAME.png in this directory without")
    add_force_option(parser)


def run(arguments: Namespace) -> None:
    if arguments.style is not None and arguments.points is None:
        raise UsageError("--style goes with --points, the text in which points or boxes are said")
    if arguments.steps:
        _steps(arguments)
        return
    if arguments.sizes or arguments.json:
        raise UsageError("--size and --json go with --steps: there is nothing to draw of a size, and a drawing is no JSON")
    if len(arguments.photos) != 1:
        raise UsageError(f"name one photo or film to draw, got {len(arguments.photos)}")
    model = chosen(arguments)
    (photo,) = arguments.photos
    output = Path(arguments.output or default_output(photo, model.name))
    check_output(output, Path(photo), arguments.force)
    name = Path(photo).name
    if arguments.video or is_film(photo):
        if arguments.points is not None:
            raise UsageError("--points are drawn on a photo, not on a film")
        from vlmkit.show.film import draw_film, see_film

        write_picture(draw_film(see_film(photo, model), name), output)
    else:
        from vlmkit.show import draw, see

        sight = see(photo, model)
        write_picture(draw(sight, name, _said(arguments, sight.plan.source)), output)
    say(output)


def _said(arguments: Namespace, size: Size) -> list[Item]:
    if arguments.points is None:
        return []
    asked = STYLES if arguments.style is None else (arguments.style,)
    said = [item for style in asked for item in parse(arguments.points, style, size)]
    if not said:
        whose = " or ".join(f"{style}'s" for style in asked)
        raise UsageError(f"nothing is said in {whose} words in {arguments.points!r}; --style is one of {', '.join(STYLES)}")
    return said


def _steps(arguments: Namespace) -> None:
    if len(arguments.photos) + len(arguments.sizes) > 1:
        raise UsageError("steps are of one photo, or of one --size")
    if arguments.points is not None:
        raise UsageError("--steps draws nothing, so it takes no --points")
    if arguments.video or arguments.output or (arguments.photos and is_film(arguments.photos[0])):
        raise UsageError("--steps prints those of a photo; it takes no film, and writes no --output")
    model = chosen(arguments)
    ((name, size),) = named_sizes(arguments)
    if isinstance(size, Exception):
        raise size
    print_steps(model, name, size, arguments.json)


def default_output(photo: str, model: str) -> str:
    """'holiday/photo.jpg', 'univa-vl+squash:size=392' -> 'photo.univa-vl+squash-size-392.png'."""
    name = re.sub(r"[^\w.+-]+", "-", model)
    return f"{Path(photo).stem}.{name}.png"
