"""Draw what a model sees of a photo: its views with patches and visual tokens, beside the photo and the numbers.

The pixels of a view are those that the encoder gets, every one of them; grid lines stand between patches and hide none.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path

from vlmkit.commands.choice import add_exchange_options, add_plugin_option, chosen
from vlmkit.commands.picture import add_force_option, check_output, write_picture


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("photo", metavar="PHOTO", help="a picture file")
    parser.add_argument("--model", metavar="NAME", required=True, help="a named model: 'vlmkit list' knows them")
    add_exchange_options(parser)
    add_plugin_option(parser)
    parser.add_argument("-o", "--output", metavar="FILE.png", help="where to write the picture; PHOTO.NAME.png in this directory without")
    add_force_option(parser)


def run(arguments: Namespace) -> None:
    model = chosen(arguments)
    output = Path(arguments.output or default_output(arguments.photo, model.name))
    check_output(output, Path(arguments.photo), arguments.force)
    from vlmkit.show import draw, see

    write_picture(draw(see(arguments.photo, model), Path(arguments.photo).name), output)
    print(output)


def default_output(photo: str, model: str) -> str:
    """'holiday/photo.jpg', 'univa-vl+squash:size=392' -> 'photo.univa-vl+squash-size-392.png'."""
    name = re.sub(r"[^\w.+-]+", "-", model)
    return f"{Path(photo).stem}.{name}.png"
