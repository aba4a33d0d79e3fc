"""One row never ends a run, and what becomes of it does not depend on the number of workers: every format, every field, any value."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tests.data.formats.published import MAKERS, cells
from tests.data.packs import jpeg
from tests.data.reading.bombs import HERE, places, put
from vlmkit.cli import main
from vlmkit.data.formats import formats
from vlmkit.data.sample import DataError, Rejected, Sample
from vlmkit.data.shards.pack import pack

VALUES = {
    **{text: text for text in ("null", "3", "-0.5", "NaN", "Infinity", "true", "[]", "{}", '""', '" "', "[null]", "[[]]", '{"":null}')},
    "a long number": "9" * 4000,
    "a long text": '"' + "x" * 1_000_000 + '"',
    "half a character": r'"\ud800"',
    "no UTF-8": '"\udcff"',
    "zero": r'"a\u0000b"',
    "lines": r'"\n\u2028\u202e\u001b[2J"',
    "a pipe": '"/dev/stdin"',
    "a folder": '".."',
    **{f"{depth} lists": "[" * depth + "]" * depth for depth in (50, 900, 2000)},
    **{f"{depth} objects": '{"a":' * depth + "0" + "}" * depth for depth in (50, 900, 2000)},
}
"""JSON."""

COLUMNS: dict[str, Callable[[], pa.Array]] = {
    "null": lambda: pa.nulls(1),
    "int": lambda: pa.array([3]),
    "NaN": lambda: pa.array([float("nan")]),
    "bool": lambda: pa.array([True]),
    "text": lambda: pa.array(["x"]),
    "long text": lambda: pa.array(["x" * 1_000_000]),
    "bytes": lambda: pa.array([b"\xff\x00"]),
    "no UTF-8": lambda: pa.StringArray.from_buffers(1, pa.array([0, 1], pa.int32()).buffers()[1], pa.py_buffer(b"\xff")),
    "list": lambda: pa.array([[None, 1]]),
    "lists": lambda: pa.array([[[], [["x"]]]]),
    "object": lambda: pa.array([{"bytes": 3, "path": b"x", "x": None, "y": [1]}]),
    "objects": lambda: pa.array([[{"x": float("nan"), "y": 1.0}, None]]),
    "pairs": lambda: pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
    "day": lambda: pa.array([2**31 - 1], pa.date32()),
    "time": lambda: pa.array([2**62], pa.timestamp("us")),
    "zone": lambda: pa.array([1], pa.timestamp("ns", "Nowhere/Here")),
    "nanoseconds": lambda: pa.array([1], pa.duration("ns")),
    "decimal": lambda: pa.array([1], pa.decimal256(76, 3)),
    "shared": lambda: pa.array(["x"]).dictionary_encode(),
    "half": lambda: pa.array(np.array([1], np.float16)),
}
TABLES = {
    "cauldron": ("images", "texts"),
    "chat": ("messages", "images", "system", "video", "more"),
    "pixmo_cap": ("image_url", "caption", "transcripts"),
    "pixmo_clocks": ("example_id", "text"),
    "pixmo_count": ("image_url", "label", "count", "points"),
    "pixmo_points": ("image_url", "label", "points", "collection_method"),
}
CELLS = {
    "number": np.array([[3.0]]),
    "nothing": np.zeros((0, 0)),
    "text": np.array(["x"]),
    "texts": np.array(["../x", ""]),
    "cells": cells(np.array(["x"]), np.array([1])),
    "flags": np.array([[True]]),
    "boxes": np.full((2, 4, 1), np.nan),
    "more boxes": np.zeros((2, 4, 1, 2)),
    "complex": np.array([[1j]]),
}


def documents(root: Path) -> Iterator[Sample | Rejected]:
    for number, (kind, file, text) in enumerate(places()):
        folder = root / f"{kind} {number}"
        folder.mkdir(parents=True)
        (folder / "a.jpg").write_bytes(jpeg(0))
        for value in VALUES.values():
            yield from read(kind, folder, put(folder, file, text, value))


def tables(root: Path) -> Iterator[Sample | Rejected]:
    for kind, columns in TABLES.items():
        folder = MAKERS[kind](root / kind)
        file = next(folder.rglob("*.parquet"), folder / "a.parquet")
        rows = pq.read_table(file).slice(0, 1) if kind != "chat" else pa.table({"messages": [[{"role": "user", "content": "?"}]]})
        for other in folder.rglob("*.parquet"):
            other.unlink()
        for column in columns:
            for name, make in COLUMNS.items():
                kept = rows.drop_columns([column]) if column in rows.column_names else rows
                pq.write_table(kept.append_column(column, make()), file, store_schema=name != "half")
                yield from read(kind, folder, {"name": file.name} if kind == "chat" else {})


def matrices(root: Path) -> Iterator[Sample | Rejected]:
    import scipy.io

    folder = MAKERS["synthtext"](root / "synthtext")
    content = scipy.io.loadmat(folder / "gt.mat")
    sound = [content[name][0, 1] for name in ("imnames", "txt", "wordBB")]
    rows = [sound]
    for place in range(3):
        rows += [[*sound[:place], cell, *sound[place + 1 :]] for cell in CELLS.values()]
    columns = zip(("imnames", "txt", "wordBB"), zip(*rows, strict=True), strict=True)
    scipy.io.savemat(folder / "gt.mat", {name: cells(*column) for name, column in columns})
    yield from read("synthtext", folder, {})


def read(kind: str, folder: Path, options: dict[str, str]) -> list[Sample | Rejected]:
    found: list[Sample | Rejected] = []
    try:
        found += formats[kind](folder, **options)
    except DataError as error:  # one for the whole folder
        assert "A reader yields a Rejected" not in str(error), (folder, options)
        found.append(Rejected(folder.name, "all", "nothing", str(error)))
    return found


def files(directory: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in directory.iterdir()}


def test_any_value_in_any_field_of_any_format(tmp_path):
    assert {kind for kind, _, _ in places()} | {*TABLES, "synthtext"} == set(formats)
    items = [*documents(tmp_path / "json"), *tables(tmp_path / "tables"), *matrices(tmp_path)]
    here = pack(items, tmp_path / "0", workers=0, limit=1)
    there = pack(items, tmp_path / "2", workers=2, limit=1)
    assert here.rejections == there.rejections
    assert files(tmp_path / "0") == files(tmp_path / "2")
    assert here.samples > 100


def test_the_command_does_the_same(tmp_path, capsys):
    """Of all these rows in one file."""
    lines = [text.splitlines()[0] for kind, file, text in places() if (kind, file) == ("chat", "data.jsonl")]
    rows = [line.replace(json.dumps(HERE), value) for line in lines for value in VALUES.values()]
    folder = tmp_path / "data"
    put(folder, "data.jsonl", json.dumps(HERE), "\n".join(rows))
    (folder / "a.jpg").write_bytes(jpeg(0))
    told = []
    for workers in ("0", "2"):
        directory = tmp_path / workers
        argv = ["pack", "--format", "chat", "--workers", workers, "--max-rejected", "1", str(folder), str(directory)]
        assert main(["data", *argv]) == 0
        captured = capsys.readouterr()
        told.append((captured.out.replace(str(directory), ""), captured.err.replace(str(directory), "")))
    assert told[0] == told[1]
    assert files(tmp_path / "0") == files(tmp_path / "2")
