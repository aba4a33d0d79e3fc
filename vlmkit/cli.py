"""`vlmkit`: the command line. Here stand the parser and what becomes of errors; each command is a file in commands/.

Results go to stdout, messages to stderr. Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted, 141 nobody reads.
Nothing heavy is imported before a command runs: help has to be there at once.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence

from vlmkit import __version__
from vlmkit.architecture import ArchitectureError
from vlmkit.commands import UsageError
from vlmkit.commands.parsers import Command, RoomForCommands, add_command
from vlmkit.commands.terminal import say
from vlmkit.plugins import PluginError
from vlmkit.registry import RegistryError
from vlmkit.terminal import guarded

COMMANDS = ("list", "tokens", "show", "plan", "data", "train", "compare", "consolidate", "eval", "chat", "serve", "export")
"""Files of commands/, in the order of the help. The first line of a file's docstring is the command's help; it has
`configure(parser)` and `run(arguments)`."""

TRACEBACK = "VLMKIT_TRACEBACK"
"""Set in the environment, errors come with a traceback."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; the exit code. Never raises, unless VLMKIT_TRACEBACK is set."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):  # a file name may hold anything, also what the terminal cannot write
            stream.reconfigure(errors="backslashreplace")
    try:
        with guarded():
            code = _run(argv)
            sys.stdout.flush()
    except BrokenPipeError:
        _close_quietly()
        return 141
    except KeyboardInterrupt:
        return 130
    return code


def _run(argv: Sequence[str] | None) -> int:
    parser = build_parser()
    try:
        arguments = parser.parse_args(argv)
    except SystemExit as stop:  # help, the version, or wrong arguments: argparse has said what there is to say
        return stop.code if isinstance(stop.code, int) else 0
    if arguments.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        arguments.run(arguments)
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get(TRACEBACK):
            raise
        return _report(f"vlmkit {arguments.command}", error)
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vlmkit",
        description="Interchangeable parts for vision-language models: look at them, count their tokens, talk to what you trained.",
        epilog=f"'vlmkit COMMAND --help' tells more. {TRACEBACK}=1 in the environment shows where an error comes from.",
        formatter_class=RoomForCommands,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"vlmkit {__version__}")
    # DeepSpeed's launcher puts it before all else; the environment says it too.
    parser.add_argument("--local_rank", type=int, help=argparse.SUPPRESS)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands", parser_class=Command)
    for name in COMMANDS:
        add_command(commands, name)
    return parser


def _report(prog: str, error: Exception) -> int:
    """One message for an error, and its exit code. vlmkit's own errors are sentences; others are named and get a way out."""
    if isinstance(error, UsageError | RegistryError | PluginError | ArchitectureError):
        say(f"{prog}: {error}\n'{prog} --help' tells what it takes.", file=sys.stderr)
        return 2
    if type(error).__module__.partition(".")[0] == "vlmkit":
        say(f"{prog}: {error}", file=sys.stderr)
    elif isinstance(error, OSError) and error.strerror and error.filename is not None:
        say(f"{prog}: {os.fsdecode(error.filename)!r}: {error.strerror}", file=sys.stderr)
    else:
        text = str(error).strip().partition("\n")[0]
        kind = type(error).__name__
        say(f"{prog}: {kind}: {text}" if text else f"{prog}: {kind}", file=sys.stderr)
        say(f"Set {TRACEBACK}=1 to see where it comes from.", file=sys.stderr)
    return 1


def _close_quietly() -> None:
    """Python flushes stdout once more when it ends, and would complain again that nobody reads."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass
