"""Draw what a model sees of a photo: its views with patches and visual tokens, beside the photo and the numbers.

The pixels of a view are those that the encoder gets, every one of them; grid lines stand between patches and hide none.
"""

from __future__ import annotations

import os
import re
from argparse import ArgumentParser, Namespace
from pathlib import Path

from vlmkit.commands import UsageError
from vlmkit.commands.choice import add_exchange_options, add_plugin_option, chosen

MARK = "vlmkit show"
"""`Software` of the pictures that this command writes, by which it knows them again."""


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("photo", metavar="PHOTO", help="a picture file")
    parser.add_argument("--model", metavar="NAME", required=True, help="a named model: 'vlmkit list' knows them")
    add_exchange_options(parser)
    add_plugin_option(parser)
    parser.add_argument("-o", "--output", metavar="FILE.png", help="where to write the picture; PHOTO.NAME.png in this directory without")
    parser.add_argument("-f", "--force", action="store_true", help="overwrite a file that is none of this command's own pictures")


def run(arguments: Namespace) -> None:
    model = chosen(arguments)
    output = Path(arguments.output or default_output(arguments.photo, model.name))
    check_output(output, Path(arguments.photo), arguments.force)
    from PIL.PngImagePlugin import PngInfo

    from vlmkit.show import draw, see

    picture = draw(see(arguments.photo, model), Path(arguments.photo).name)
    info = PngInfo()
    info.add_text("Software", MARK)
    # Whole or not at all: a full disk or Ctrl-C leaves an older picture as it was.
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            picture.save(file, "PNG", pnginfo=info)
        os.replace(partial, output)
    except OSError as error:
        raise OutputError(f"cannot write {str(output)!r}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)
    print(output)


def default_output(photo: str, model: str) -> str:
    """'holiday/photo.jpg', 'univa-vl+squash:size=392' -> 'photo.univa-vl+squash-size-392.png'."""
    name = re.sub(r"[^\w.+-]+", "-", model)
    return f"{Path(photo).stem}.{name}.png"


class OutputError(ValueError):
    """A picture that cannot be written where it was asked for."""


def check_output(output: Path, photo: Path, force: bool) -> None:
    """Raises UsageError or OutputError where writing would be impossible, or would destroy something."""
    if output.suffix.lower() != ".png":
        raise UsageError(f"the picture is a PNG: call it {output.with_suffix('.png').name!r}, not {output.name!r}")
    if not output.parent.is_dir():
        raise OutputError(f"cannot write {str(output)!r}: there is no directory {str(output.parent)!r}")
    if not output.exists():
        return
    if not output.is_file():
        raise OutputError(f"cannot write {str(output)!r}: it is there and is no ordinary file")
    if photo.exists() and output.samefile(photo):
        raise OutputError(f"cannot write {str(output)!r}: it is the photo itself")
    if not force and not _is_ours(output):
        raise OutputError(f"{str(output)!r} is there already and was not drawn by this command; take another name, or -f to overwrite it")


def _is_ours(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            return bool(image.info.get("Software") == MARK)
    except Exception:
        return False
