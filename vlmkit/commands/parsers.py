"""Parsers of commands, made of the files that the commands stand in."""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from importlib import import_module
from typing import Any, NoReturn

from vlmkit.terminal import printable


class Command(argparse.ArgumentParser):
    """The parser of a command, which says itself what it does not know: argparse leaves that to the parser of all commands, with a usage
    that tells nothing of the command's options."""

    def error(self, message: str) -> NoReturn:
        super().error(printable(message))

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:
            known = [option for action in self._actions for option in action.option_strings]
            options = [word.partition("=")[0] for word in unknown if word.startswith("-")]
            near = dict.fromkeys(match for option in options for match in get_close_matches(option, known, n=1))
            self.error(f"unrecognized arguments: {' '.join(unknown)}" + (f"; did you mean {', '.join(near)}?" if near else ""))
        return found, unknown


class RoomForCommands(argparse.HelpFormatter):
    """Help that stands beside every command: argparse reckons them two columns further out than it prints them, and breaks the longest."""

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action.choices, dict):
            self._action_max_length = max(self._action_max_length, 4 + max(map(len, action.choices)))


def add_command(commands: Any, name: str, *, inside: str = "") -> None:
    """The command of a file of this folder; of several words where it stands `inside` another command ("data pack" in data_pack.py)."""
    words = (inside, name) if inside else (name,)
    module = import_module(f"vlmkit.commands.{'_'.join(words)}")
    summary, _, more = (module.__doc__ or "").partition("\n")
    command = commands.add_parser(
        name,
        help=summary,
        description=f"{summary}\n{more}".strip(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    module.configure(command)
    command.set_defaults(run=module.run, command=" ".join(words))
