"""Turn data sets into shards for training, count what is in them, look at them.

Readers and models from outside the package are brought by --plugin, an option of each of these.
"""

from __future__ import annotations

import argparse
from argparse import ArgumentParser, Namespace
from importlib import import_module

COMMANDS = ("pack", "mix", "stats", "show")
"""Files data_pack.py and so on beside this one, made like the other commands."""


def configure(parser: ArgumentParser) -> None:
    commands = parser.add_subparsers(metavar="COMMAND", title="commands", required=True)
    for name in COMMANDS:
        module = import_module(f"vlmkit.commands.data_{name}")
        summary, _, more = (module.__doc__ or "").partition("\n")
        command = commands.add_parser(
            name,
            help=summary,
            description=f"{summary}\n{more}".strip(),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        module.configure(command)
        command.set_defaults(run=module.run, command=f"data {name}")


def run(arguments: Namespace) -> None:
    """Never reached: a command of its own is required."""
    raise AssertionError(arguments)
