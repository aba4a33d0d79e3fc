"""Parquet files that ask for much: columns, and how they are written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

COLUMNS = {
    "cauldron": ("images", "texts"),
    "chat": ("messages", "images"),
    "pixmo_cap": ("image_url", "caption"),
    "pixmo_clocks": ("example_id", "text"),
    "pixmo_count": ("image_url", "label"),
    "pixmo_points": ("points", "label"),
}
"""Of each format whose rows are tables: where a bomb is put, and another column."""


@dataclass(frozen=True)
class TableBomb:
    column: Callable[[int], pa.Array]
    """About so many bytes when it is unpacked."""
    written: dict[str, Any] = field(default_factory=dict)
    encoding: str = ""


def in_one_row(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def large(size: int, count: int) -> pa.Array:
    value = b"x" * (size // count)
    return pa.array([value] * count, pa.binary())


def shared(size: int, count: int) -> pa.Array:
    return pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), large(size // count, 1))


def empty_lists(size: int) -> pa.Array:
    return in_one_row(pa.ListArray.from_arrays(pa.array(np.zeros(size // 5 + 1, np.int32)), pa.array([], pa.int32())))


def objects(size: int) -> pa.Array:
    count = size // 500
    return in_one_row(pa.StructArray.from_arrays([pa.array(np.zeros(count)), pa.array(np.zeros(count))], ["x", "y"]))


def nested(depth: int) -> pa.Array:
    kind, value = pa.int32(), 1
    for _ in range(depth):
        kind, value = pa.struct([("a", kind)]), {"a": value}
    return pa.array([value], kind)


PLAIN: dict[str, Any] = {"use_dictionary": False, "write_batch_size": 1}
TABLES = {
    "a value": TableBomb(lambda size: large(size, 1), {**PLAIN, "compression": "none"}),
    "large values in a list": TableBomb(lambda size: in_one_row(large(size, 500)), {**PLAIN, "compression": "zstd"}),
    "large values in a page": TableBomb(lambda size: large(size, 8), {"use_dictionary": False, "compression": "zstd"}),
    "a shared value": TableBomb(lambda size: shared(2 * size, 8), {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30}),
    "a shared value in a list": TableBomb(lambda size: in_one_row(shared(8 * size, 4000)), {"compression": "zstd"}),
    "a shared beginning": TableBomb(lambda size: in_one_row(large(size, 500)), {**PLAIN, "compression": "zstd"}, "DELTA_BYTE_ARRAY"),
    "empty lists": TableBomb(empty_lists, {"compression": "zstd"}),
    "nothing": TableBomb(lambda size: in_one_row(pa.nulls(size // 5, pa.int32())), {"compression": "zstd"}),
    "objects": TableBomb(objects),
    "nested": TableBomb(lambda size: nested(100)),
    **{
        f"a value in {codec}": TableBomb(lambda size: large(size, 1), {**PLAIN, "compression": codec})
        for codec in ("snappy", "gzip", "zstd", "brotli", "lz4")
    },
}


def put_table(folder: Path, kind: str, bomb: TableBomb, size: int) -> dict[str, str]:
    """The options with which it is read."""
    column, other = COLUMNS[kind]
    bombed = bomb.column(size)
    table = pa.table({column: bombed, other: pa.array(["x"] * len(bombed))})
    written = dict(bomb.written)
    if bomb.encoding:
        leaf = f"{column}.list.element" if pa.types.is_list(bombed.type) else column
        written["column_encoding"] = {leaf: bomb.encoding}
    path = folder / ("data.parquet" if kind == "chat" else "data/train-0.parquet")
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **written)
    return {"name": path.name} if kind == "chat" else {}
