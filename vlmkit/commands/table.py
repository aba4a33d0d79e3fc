"""Tables: as wide as the terminal where there is one, as wide as they need to be in a pipe."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Literal

from vlmkit.terminal import is_terminal, printable

PIPE_WIDTH = 100_000
"""Nothing is wrapped or cut off where a program reads; a table takes only what it needs of it."""


def print_table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, title: str = "", right: Sequence[str] = ()) -> None:
    """A table on stdout; the columns named in `right` hold numbers. Text is taken as it is, without markup."""
    from rich import box
    from rich.table import Table

    from vlmkit.screen import Screen

    console = Screen(width=None if is_terminal(sys.stdout) else PIPE_WIDTH)
    if title:
        console.print(printable(title), style="bold", soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False, show_edge=False)
    for number, column in enumerate(columns):
        justify: Literal["left", "right"] = "right" if column in right else "left"
        first = number == 0  # names, which are to be copied: never broken
        table.add_column(printable(column), justify=justify, style="cyan" if first else "", no_wrap=first, overflow="fold")
    for row in rows:
        table.add_row(*map(printable, row))
    console.print(table)
