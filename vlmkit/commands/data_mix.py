"""Mixtures that papers name: how each source is packed, and how often it is drawn.

Without a name all are listed. --data takes the directory in which the shards of each source lie in a folder of its name: what is printed
then is the `data` of a stage, for --stages of 'vlmkit train', weighed by what is there; and `conversations`, where the paper weighs several
about one image otherwise than alike.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from pathlib import Path

from vlmkit.commands import UsageError
from vlmkit.commands.choice import add_plugin_option, load_plugins
from vlmkit.commands.table import print_table
from vlmkit.commands.terminal import say
from vlmkit.data.mixes import Mix, list_mixes, mix
from vlmkit.data.sample import DataError


def configure(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", nargs="?", help="the mixture")
    parser.add_argument("--data", metavar="DIR", type=Path, help="print the stage's data from the shards that lie there")
    add_plugin_option(parser)


def run(arguments: Namespace) -> None:
    load_plugins(arguments)
    if arguments.name is None:
        if arguments.data is not None:
            raise UsageError(f"--data {arguments.data} needs the NAME of a mixture: {', '.join(list_mixes())}")
        print_table(("mixture", "what it is"), [(name, mix(name).about) for name in list_mixes()])
        return
    chosen = mix(arguments.name)
    if arguments.data is None:
        _print_sources(chosen)
    else:
        _print_stage_data(chosen, arguments.data)


def _print_sources(chosen: Mix) -> None:
    say(f"{chosen.about}\n")
    rows = []
    for group in chosen.groups:
        for source in group.sources:
            wanted = "".join(f" --filter '{each}'" for each in source.filters)
            command = f"vlmkit data pack FOLDER shards/{source.name} --format '{source.format}'{wanted}"
            rows.append((source.name, source.published, f"{group.share:g}", command))
    print_table(("source", "published as", "share of its group", "packed by"), rows)


def _print_stage_data(chosen: Mix, folder: Path) -> None:
    import sys

    from vlmkit.data.shards import Shards

    if not folder.is_dir():
        raise UsageError(f"--data {folder} is no directory; 'vlmkit data pack' writes shards into DIR/<source>")
    sizes = {source.name: len(Shards(folder / source.name)) for source in chosen.sources if (folder / source.name).is_dir()}
    try:
        weights = chosen.weights(sizes)
    except DataError as error:
        raise DataError(f"{folder}: {error}") from None
    missing = [source.name for source in chosen.sources if source.name not in sizes]
    if missing:
        say(f"not in {folder}, so left out: {', '.join(missing)}", file=sys.stderr)
    if chosen.conversations != "alike":
        say(f"conversations: {chosen.conversations}")
    say("data:")
    for name, weight in weights.items():
        say(f"  - {{name: {name}, weight: {weight:.6g}}}")
