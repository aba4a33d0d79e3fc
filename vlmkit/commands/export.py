"""Write a model as a directory that transformers' own class loads, and with it vLLM, SGLang and others.

Not every choice of parts has such a class; where none fits, the reason of each is told and nothing is written.
"""

from __future__ import annotations

import os
import shutil
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vlmkit.commands.checkpoint import find_checkpoint
from vlmkit.commands.choice import add_plugin_option, load_plugins
from vlmkit.commands.terminal import say
from vlmkit.files import writing
from vlmkit.terminal import is_terminal

FORMATS = {"transformers": None, "llava": "llava_original"}
"""Whose classes load a directory -> the file of vlmkit/checkpoints that writes it; None: the first that can."""


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("run_directory", metavar="RUN", help="directory of a training run or of a checkpoint, or a hub's owner/name")
    parser.add_argument("directory", metavar="DIR", help="where to write: a directory that is not there yet, or is empty")
    parser.add_argument(
        "--format", choices=FORMATS, default="transformers", help="whose classes are to load it (transformers); llava: LLaVA's own"
    )
    parser.add_argument("--dtype", help="such as bfloat16; the saved one without")
    add_plugin_option(parser)


def run(arguments: Namespace) -> None:
    load_plugins(arguments)
    source, target = find_checkpoint(arguments.run_directory), Path(arguments.directory)
    check_target(target)

    import sys

    from transformers.utils.logging import disable_progress_bar

    import vlmkit
    from vlmkit.checkpoints import export

    if not is_terminal(sys.stderr):
        disable_progress_bar()
    model, processor = vlmkit.load(source, dtype=arguments.dtype)
    with whole_directory(target) as partial:
        export(model, processor, partial, FORMATS[arguments.format])
    say(target)


class TargetError(ValueError):
    """A directory that cannot be written where it was asked for."""


def check_target(target: Path) -> None:
    """Raises TargetError where writing would be impossible, or would mix with what is there."""
    if not target.resolve().parent.is_dir():
        raise TargetError(f"cannot write {str(target)!r}: there is no directory {str(target.parent)!r}")
    if target.is_dir():
        if any(target.iterdir()):
            raise TargetError(f"{str(target)!r} is there already and is not empty; name a directory that is not there yet")
    elif target.exists() or target.is_symlink():
        raise TargetError(f"{str(target)!r} is there already and is no directory; name a directory that is not there yet")


@contextmanager
def whole_directory(target: Path) -> Iterator[Path]:
    """A directory to write to, beside `target`. Its files are where they belong once all are written, and gone where that
    failed. Raises TargetError where the disk does not take them."""
    asked, target = target, target.resolve()
    partial = target.with_name(f".{target.name}.{os.getpid()}")
    moved: list[Path] = []
    try:
        with writing(target):
            partial.mkdir()
            yield partial
            if target.is_dir():  # it may be somebody's current directory: it is filled, not replaced
                for file in partial.iterdir():
                    moved.append(target / file.name)
                    file.rename(moved[-1])
                moved.clear()
            else:
                partial.rename(target)
    except OSError as error:
        where = partial if error.filename is None else Path(os.fsdecode(error.filename)).absolute()
        if type(error).__module__.partition(".")[0] == "vlmkit" or not {partial, target}.intersection((where, *where.parents)):
            raise  # of what was read meanwhile
        raise TargetError(f"cannot write {str(asked)!r}: {error.strerror or error}") from None
    finally:
        for file in moved:
            shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
        shutil.rmtree(partial, ignore_errors=True)
