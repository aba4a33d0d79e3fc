"""Pages of the documentation as something that can be run.

A ```python block after a line "`name.py`:" is that file; other ```python blocks run one after the other in one namespace,
and a comment after an expression is its repr. Lines of a ```console block that begin with "$ vlmkit" are command lines.

Run as a script, `pages.py PAGE` runs a page in the current directory, for pages whose parts must not stay registered.
"""

from __future__ import annotations

import ast
import io
import re
import shlex
import sys
import tokenize
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    line: int
    file: str | None
    """The file that the block is, where the line above names one."""


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    found = []
    for match in FENCE.finditer(text):
        above = text[: match.start()].rstrip().rpartition("\n")[2]
        name = re.fullmatch(r"`([\w.]+\.\w+)`:", above)
        line = text.count("\n", 0, match.start()) + 2
        found.append(Block(match[1], match[2], line, name[1] if name else None))
    return found


def run_page(page: Path) -> int:
    """Write the page's files, run its code and its command lines; the number of values that were compared."""
    from vlmkit.cli import main

    namespace: dict[str, Any] = {"__name__": "page"}
    compared = 0
    for block in blocks(page):
        if block.file is not None:
            Path(block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            compared += _run(block, namespace, page.name)
        elif block.language == "console":
            for command in command_lines(block, "vlmkit"):
                assert main(command) == 0, f"{page.name}, line {block.line}: vlmkit {shlex.join(command)} failed"
    return compared


def command_lines(block: Block, program: str) -> list[list[str]]:
    """Arguments of the lines '$ program ...' of a block."""
    lines = (shlex.split(line.removeprefix("$ ")) for line in block.text.splitlines() if line.startswith("$ "))
    return [words[1:] for words in lines if words[0] == program]


def _run(block: Block, namespace: dict[str, Any], name: str) -> int:
    # Lines of a traceback are those of the page.
    tree = ast.increment_lineno(ast.parse(block.text), block.line - 1)
    comments = {
        token.start[0] + block.line - 1: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(block.text).readline)
        if token.type == tokenize.COMMENT
    }
    compared = 0
    for node in tree.body:
        if not isinstance(node, ast.Expr):
            exec(compile(ast.Module([node], []), name, "exec"), namespace)
            continue
        value = eval(compile(ast.Expression(node.value), name, "eval"), namespace)
        expected = comments.get(node.end_lineno or 0)
        if expected is not None:
            compared += 1
            assert repr(value) == expected, f"{name}, line {node.end_lineno}: the page says {expected}, it is {value!r}"
    return compared


if __name__ == "__main__":
    print(run_page(Path(sys.argv[1])), "values compared")
