"""Draw what a model sees of a photo, or is shown of a film: views with patches and visual tokens, or frames with their times.

The pixels of a view are those that the encoder gets, every one of them; grid lines stand between patches and hide none. A film is a file
whose name says so (clip.mp4), or any with --video.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path

from vlmkit.commands.choice import add_exchange_options, add_language_model_option, add_plugin_option, chosen
from vlmkit.commands.film import is_film
from vlmkit.commands.picture import add_force_option, check_output, write_picture


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("photo", metavar="PHOTO", help="a picture or a video file")
    parser.add_argument("--video", action="store_true", help="take the file for a film, such as a GIF; of a name that says so it is taken")
    parser.add_argument(
        "--model", metavar="NAME", default="univa-vl", help="a named model, %(default)s unless given: 'vlmkit list' knows them"
    )
    add_exchange_options(parser)
    add_language_model_option(parser)
    add_plugin_option(parser)
    parser.add_argument("-o", "--output", metavar="FILE.png", help="where to write the picture; PHOTO.NAME.png in this directory without")
    add_force_option(parser)


def run(arguments: Namespace) -> None:
    model = chosen(arguments)
    output = Path(arguments.output or default_output(arguments.photo, model.name))
    check_output(output, Path(arguments.photo), arguments.force)
    name = Path(arguments.photo).name
    if arguments.video or is_film(arguments.photo):
        from vlmkit.show_film import draw_film, see_film

        write_picture(draw_film(see_film(arguments.photo, model), name), output)
    else:
        from vlmkit.show import draw, see

        write_picture(draw(see(arguments.photo, model), name), output)
    print(output)


def default_output(photo: str, model: str) -> str:
    """'holiday/photo.jpg', 'univa-vl+squash:size=392' -> 'photo.univa-vl+squash-size-392.png'."""
    name = re.sub(r"[^\w.+-]+", "-", model)
    return f"{Path(photo).stem}.{name}.png"
