"""Pictures that commands write: PNG files that they know again, whole or not at all, and nobody else's file is overwritten."""

from __future__ import annotations

import os
from argparse import ArgumentParser
from pathlib import Path
from typing import TYPE_CHECKING

from vlmkit.commands import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

MARK = "vlmkit"
"""`Software` of the pictures that commands write, by which they know them again."""


class OutputError(ValueError):
    """A picture that cannot be written where it was asked for."""


def add_force_option(parser: ArgumentParser) -> None:
    parser.add_argument("-f", "--force", action="store_true", help="overwrite a file that is none of vlmkit's own pictures")


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
        raise OutputError(f"{str(output)!r} is there already and was not drawn by vlmkit; take another name, or -f to overwrite it")


def write_picture(picture: Image, output: Path) -> None:
    """Raises OutputError. Whole or not at all: a full disk or Ctrl-C leaves an older picture as it was."""
    from PIL.PngImagePlugin import PngInfo

    info = PngInfo()
    info.add_text("Software", MARK)
    partial = output.with_name(f".{output.name}.{os.getpid()}")
    try:
        with open(partial, "wb") as file:
            picture.save(file, "PNG", pnginfo=info)
        os.replace(partial, output)
    except OSError as error:
        raise OutputError(f"cannot write {str(output)!r}: {error.strerror or error}") from None
    finally:
        partial.unlink(missing_ok=True)


def _is_ours(path: Path) -> bool:
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            return bool(image.info.get("Software") == MARK)
    except Exception:
        return False
