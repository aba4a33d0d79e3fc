"""Write a data set, in the form in which its authors publish it, as shards with an index.

Interrupted, the same command goes on behind the last finished shard. Every image is decoded once to see that it can be:
a file that is cut short looks sound from its header, and would leave a hole in a batch of every epoch. --headers-only
leaves that out, which is many times as fast, for data that was decoded before.
"""

from __future__ import annotations

import inspect
import os
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmkit.commands import UsageError
from vlmkit.commands.choice import add_plugin_option, load_plugins
from vlmkit.commands.terminal import say
from vlmkit.data.filters import Filter, filters
from vlmkit.registry import suggestion
from vlmkit.spec import SpecError
from vlmkit.written import read_fields

if TYPE_CHECKING:
    from vlmkit.data.shards.writer import ShardWriter

SECONDS_BETWEEN_LINES = 10.0
"""Where no terminal shows a bar."""


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("folder", metavar="FOLDER", help="the data set")
    parser.add_argument("output", metavar="OUTPUT", help="directory for the shards, new or empty, or to go on with")
    parser.add_argument(
        "--format",
        metavar="NAME[:OPTION=VALUE,...]",
        required=True,
        help="how the folder is read, such as coco or coco:split=val: 'vlmkit list --formats' knows all",
    )
    parser.add_argument(
        "--filter",
        metavar="NAME[:OPTION=VALUE,...]",
        dest="filters",
        action="append",
        default=[],
        help="which samples are wanted, such as without:file=toxic.txt: 'vlmkit list --filters' knows all; repeatable",
    )
    parser.add_argument("--workers", metavar="N", type=_number, help="processes that open images; one a core without it, 0 for none")
    parser.add_argument("--headers-only", action="store_true", help="read sizes from headers and decode no image")
    parser.add_argument(
        "--max-rejected", metavar="SHARE", type=_share, default=0.05, help="stop where more of a source cannot be used (0.05: 5 %%)"
    )
    parser.add_argument("--shard-size", metavar="MB", type=positive, default=256, help="a shard ends at this size (256)")
    add_plugin_option(parser)


def run(arguments: Namespace) -> None:
    load_plugins(arguments)

    from vlmkit.data.filters import filtered
    from vlmkit.data.formats import formats
    from vlmkit.data.rejections import TooManyRejected
    from vlmkit.data.shards.pack import pack
    from vlmkit.data.shards.places import folder as local_folder

    name, options = _read("format", arguments.format)
    reader = formats[name]
    _check_options("format", list(inspect.signature(reader).parameters.values())[1:], name, options)
    wanted = [_filter(text) for text in arguments.filters]
    folder, output = Path(arguments.folder), local_folder(arguments.output)
    if name == "webdataset" and Path(os.path.realpath(output)).is_relative_to(os.path.realpath(folder)):
        raise UsageError(f"{output} lies in {folder}, whose tars are read: name a directory beside it")
    # Not the path: shards are passed on, and a data set may be moved.
    job = {"format": name, "options": options, "folder": os.path.basename(os.path.realpath(folder))}
    if wanted:
        job["filters"] = arguments.filters
    with _shown(output.name) as watch:
        try:
            done = pack(
                filtered(reader(folder, **options), wanted),
                output,
                job=job,
                workers=arguments.workers,
                whole=not arguments.headers_only,
                limit=arguments.max_rejected,
                shard_bytes=arguments.shard_size << 20,
                watch=watch,
            )
        except TooManyRejected as error:
            raise TooManyRejected(f"{error} (--max-rejected); the same command then goes on") from None
        except KeyboardInterrupt:
            say(f"stopped; the same command goes on behind the last finished shard in {output}", file=sys.stderr)
            raise
        except OSError as error:
            if error.filename is not None:
                raise
            # Python does not say which file: it is the one being written, and the disk is full.
            way_out = "then the same command goes on behind the last finished shard"
            raise OSError(error.errno, f"{error.strerror}; {way_out}", str(output)) from None
    if report := done.rejections.report():
        say(report, file=sys.stderr)
    say(f"{output}: {done.samples:,} samples, {done.images:,} images, {done.bytes / 1e6:,.1f} MB")


def _read(option: str, text: str) -> tuple[str, dict[str, Any]]:
    try:
        return read_fields(text)
    except SpecError as error:
        raise UsageError(f"--{option} {text}: {error}") from None


def _filter(text: str) -> Filter:
    """Raises RegistryError, UsageError, DataError."""
    name, options = _read("filter", text)
    make = filters[name]
    parameters = list(inspect.signature(make).parameters.values())
    _check_options("filter", parameters, name, options)
    missing = [one.name for one in parameters if one.default is inspect.Parameter.empty and one.name not in options]
    if missing:
        raise UsageError(f"--filter {text}: {name!r} needs {missing[0]}=...")
    return make(**options)


def _check_options(family: str, parameters: Sequence[inspect.Parameter], name: str, options: dict[str, Any]) -> None:
    # A function is not to be written on a command line.
    known = [one.name for one in parameters if not any(kind in str(one.annotation) for kind in ("Fetch", "Callable"))]
    for option in options:
        if option not in known:
            told = f"{suggestion(option, known)} known: {', '.join(known)}" if known else " it has none"
            raise UsageError(f"--{family} {name}: unknown option {option!r};{told}")


@contextmanager
def _shown(name: str) -> Iterator[Callable[[ShardWriter], None]]:
    """A live bar on a terminal, a line every few seconds elsewhere, on stderr."""
    from rich.progress import BarColumn, TimeElapsedColumn

    from vlmkit.screen import Bars, Screen, Words

    console = Screen(stderr=True)
    begun = last = time.monotonic()
    first: int | None = None

    def told(writer: ShardWriter) -> str:
        nonlocal first
        first = writer.samples if first is None else first
        rate = (writer.samples - first) / max(time.monotonic() - begun, 1e-9)
        return f"{writer.samples:,} samples  {writer.bytes / 1e6:,.0f} MB  {writer.rejections.total():,} rejected  {rate:,.0f} samples/s"

    if not console.is_terminal:

        def line(writer: ShardWriter) -> None:
            nonlocal last
            text = told(writer)
            if time.monotonic() - last >= SECONDS_BETWEEN_LINES:
                last = time.monotonic()
                console.print(f"{name}: {text}", soft_wrap=True)

        yield line
        return
    # A reader does not say how much it will yield: the bar shows that something goes on, the words how much.
    columns = (Words("{task.description}"), BarColumn(), Words("{task.fields[text]}"), TimeElapsedColumn())
    with Bars(*columns, console=console, refresh_per_second=4) as bar:
        task = bar.add_task(name, total=None, text="reading")
        yield lambda writer: bar.update(task, text=told(writer))


def _number(text: str) -> int:
    if not text.isdecimal():
        raise ArgumentTypeError(f"expected a whole number from 0 up, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentTypeError(f"expected a whole number from 1 up, got {text!r}")
    return int(text)


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 1:
        raise ArgumentTypeError(f"expected a share from 0 to 1, got {text!r}")
    return value
