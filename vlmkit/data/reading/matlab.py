"""SynthText's gt.mat, read in a process of its own: `python matlab.py gt.mat` prints a line of JSON an image.

scipy reads the whole file at once, and a damaged one can make it take all memory or crash the interpreter; here that is the
end of a child with a bound on its memory, which the reader reports. This file is the child and imports nothing of vlmkit.
"""

from __future__ import annotations

import json
import math
import os
import sys
from typing import Any

CELLS = ("imnames", "txt", "wordBB")
SPARE = 8 << 30
"""Bytes of address space beside four times the file."""


def main(file: str) -> None:
    """Lines [path, words, number of boxes], each null where the cell holds something else; or one line {"error": ...}."""
    try:
        _bound_memory(SPARE + 4 * os.path.getsize(file))
        names, texts, boxes = _cells(file)
    except Exception as error:  # on bad bytes scipy raises nearly anything
        print(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        return
    for name, text, box in zip(names, texts, boxes, strict=True):
        path, lines = _strings(name), _strings(text)
        print(json.dumps([path[0] if path else None, " ".join(lines).split() if lines else None, _boxes(box)]))


def _bound_memory(size: int) -> None:
    try:
        import resource
    except ImportError:  # Windows has none
        return
    resource.setrlimit(resource.RLIMIT_AS, (size, size))


def _cells(file: str) -> list[Any]:
    """The cells of CELLS, each (N,)."""
    import scipy.io

    # A damaged header may promise more cells than the file has bytes, and loadmat would make room for them first.
    if any(math.prod(shape) > os.path.getsize(file) for _, shape, _ in scipy.io.whosmat(file)):
        raise ValueError("its header gives more cells than there are bytes")
    content = scipy.io.loadmat(file, variable_names=CELLS)
    cells = [content[name].reshape(-1) for name in CELLS]
    if len({len(cell) for cell in cells}) != 1:
        raise ValueError(f"{', '.join(f'{len(cell)} {name}' for name, cell in zip(CELLS, cells, strict=True))}, expected as many of each")
    return cells


def _strings(cell: Any) -> list[str]:
    """Texts of a character array; none for anything else."""
    if getattr(cell, "dtype", None) is None or cell.dtype.kind != "U":
        return []
    return [str(text) for text in cell.reshape(-1)]


def _boxes(cell: Any) -> int | None:
    """(2, 4, words), and (2, 4) where there is one word."""
    shape: tuple[int, ...] = getattr(cell, "shape", ())
    if shape[:2] != (2, 4) or len(shape) > 3:
        return None
    return int(shape[2]) if len(shape) == 3 else 1


if __name__ == "__main__":
    main(sys.argv[1])
