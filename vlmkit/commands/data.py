"""Turn data sets into shards for training, count what is in them, look at them.

Readers and models from outside the package are brought by --plugin, an option of each of these.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace

from vlmkit.commands.parsers import add_command

COMMANDS = ("pack", "mix", "stats", "show")
"""Files data_pack.py and so on beside this one, made like the other commands."""


def configure(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", required=True)
    for name in COMMANDS:
        add_command(commands, name, inside="data")


def run(arguments: Namespace) -> None:
    """Never reached: a command of its own is required."""
    raise AssertionError(arguments)
