"""Draw a contact sheet of packed samples: their images, and what is said about them.

Without numbers, samples are drawn at random, the same with the same seed. What is learned is blue.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from vlmkit.commands import UsageError
from vlmkit.commands.choice import add_plugin_option, load_plugins
from vlmkit.commands.data_pack import positive
from vlmkit.commands.picture import add_force_option, check_output, write_picture
from vlmkit.commands.terminal import say
from vlmkit.registry import suggestion

if TYPE_CHECKING:
    from vlmkit.data.sample import DataError, Sample
    from vlmkit.data.shards import Shards
    from vlmkit.data.shards.places import Place


MOST_SAMPLES = 500
"""Of one sheet: it takes a megabyte and a half for each, and nothing shows a longer one."""


def configure(parser: ArgumentParser) -> None:
    parser.add_argument(
        "shards", metavar="SHARDS", help="directory that 'vlmkit data pack' wrote, or its address, such as s3://bucket/folder"
    )
    parser.add_argument("numbers", metavar="NUMBER", nargs="*", type=int, help="samples, from 0 up; -1 is the last")
    parser.add_argument("--count", metavar="N", type=positive, default=12, help="samples drawn at random (12)")
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of the draw (0)")
    parser.add_argument("--source", metavar="NAME", help="only samples of this source")
    parser.add_argument(
        "-o", "--output", metavar="FILE.png", help="where to write the picture; SHARDS.samples.png in this directory without"
    )
    add_force_option(parser)
    add_plugin_option(parser)


def run(arguments: Namespace) -> None:
    load_plugins(arguments)
    if max(len(arguments.numbers), 0 if arguments.numbers else arguments.count) > MOST_SAMPLES:
        raise UsageError(f"a sheet shows at most {MOST_SAMPLES} samples; draw several, with other numbers or another --seed")
    from vlmkit.data.shards.places import place

    directory = place(arguments.shards)
    output = Path(arguments.output or default_output(directory, "samples"))
    check_output(output, Path(arguments.shards), arguments.force)

    from vlmkit.data.looking.contact_sheet import draw
    from vlmkit.data.shards import Shards

    shards = Shards(directory)
    numbers = arguments.numbers or _drawn(shards, arguments.source, arguments.count, arguments.seed)
    title = f"{shards.directory.name}: {len(numbers):,} of {len(shards):,} samples"
    write_picture(draw(title, [_named(shards, number) for number in numbers]), output)
    say(output)


def default_output(directory: Place, what: str) -> str:
    """'packed/coco', 'samples' -> 'coco.samples.png'."""
    name = re.sub(r"[^\w.+-]+", "-", directory.resolve().name)
    return f"{name or 'shards'}.{what}.png"


def _drawn(shards: Shards, source: str | None, count: int, seed: int) -> list[int]:
    import random

    import numpy as np

    if source is None:
        return sorted(random.Random(seed).sample(range(len(shards)), min(count, len(shards))))
    names = list(shards.summary.sources)
    if source not in names:
        raise UsageError(f"no samples of {source!r} there;{suggestion(source, names)} known: {', '.join(names)}")
    found = np.flatnonzero(shards.tables.rows["source"] == names.index(source)).tolist()
    return sorted(random.Random(seed).sample(found, min(count, len(found))))


def _named(shards: Shards, number: int) -> tuple[str, Sample | DataError]:
    from vlmkit.data.sample import DataError

    if not -len(shards) <= number < len(shards):
        raise UsageError(f"there are {len(shards):,} samples, asked for number {number}")
    place = number % len(shards)
    try:
        sample = shards[place]
        return f"{place} {sample.source} {sample.id}", sample
    except DataError as error:
        return f"{place} {shards.source(place)}", error
