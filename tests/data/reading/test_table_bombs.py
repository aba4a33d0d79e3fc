"""Parquet files that ask for much, and damaged ones: rejected with the reason before anything is unpacked; the process lives."""

from __future__ import annotations

import shutil
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.data.reading.table_bombs import COLUMNS, TABLES, put_table
from tests.data.reading.test_format_bombs import BYTES, REASONS, SECONDS, measured
from vlmkit.data.formats import formats
from vlmkit.data.reading import parquet, parquet_bounds, parquet_pages
from vlmkit.data.reading.parquet import parquet_rows
from vlmkit.data.reading.rows import AnnotationRow
from vlmkit.data.sample import Rejected

__all__ = ["measured"]


@pytest.mark.parametrize("name", TABLES)
@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_without_measure_is_rejected(kind, name, tmp_path, monkeypatch):
    for bound in ("MAX_PAGE", "MAX_ROW", "MAX_GROWN", "MAX_DICTIONARY", "MAX_VALUES", "_TOGETHER"):
        monkeypatch.setattr(parquet_bounds, bound, getattr(parquet_bounds, bound) >> 9)
    monkeypatch.setattr(parquet, "MAX_ROW", parquet_bounds.MAX_ROW)
    options = put_table(tmp_path, kind, TABLES[name], 1 << 20)
    items = list(formats[kind](tmp_path, **options))
    assert items
    assert all(isinstance(item, Rejected) and item.reason in REASONS for item in items)


@pytest.mark.slow
@pytest.mark.parametrize("size", [30_000_000, 500_000_000])
@pytest.mark.parametrize("kind", COLUMNS)
def test_a_column_without_measure_takes_little(kind, size, tmp_path, measured):
    """Neither does one just within the bounds."""
    over = []
    for name, bomb in TABLES.items():
        folder = tmp_path / name
        options = put_table(folder, kind, bomb, size)
        seconds, grown, found = measured(kind, folder, **options)
        if seconds > SECONDS or grown > BYTES or "" in found:
            over.append((name, seconds, grown, found))
        shutil.rmtree(folder)
    assert not over


def table(rows: int) -> pa.Table:
    """Lists of all lengths, texts that are shared and others."""
    return pa.table(
        {
            "lists": pa.array([list(range(number % 40)) if number % 7 else None for number in range(rows)], pa.list_(pa.int64())),
            "lists of lists": pa.array([[[1] * (number % 3), []] * (number % 5) for number in range(rows)], pa.list_(pa.list_(pa.int8()))),
            "texts": pa.array([f"text {number % 9}" * (number % 11) for number in range(rows)]),
            "objects": pa.array([{"a": number, "b": [{"c": str(number)}] * (number % 6)} for number in range(rows)]),
        }
    )


WRITTEN = [
    {},
    {"compression": "gzip", "data_page_version": "2.0"},
    {"compression": "none", "use_dictionary": False},
    {"compression": "zstd", "data_page_size": 100, "write_batch_size": 3, "row_group_size": 700},
    {"compression": "brotli", "version": "1.0"},
    {
        "compression": "lz4",
        "use_dictionary": False,
        "column_encoding": {"texts": "DELTA_BYTE_ARRAY", "lists.list.element": "DELTA_BINARY_PACKED"},
    },
]


@pytest.mark.parametrize("few", [0, 1 << 16])
@pytest.mark.parametrize("written", WRITTEN, ids=range(len(WRITTEN)))
def test_what_a_sound_table_takes_is_known_and_enough(written, few, tmp_path, monkeypatch):
    whole = table(2000)
    pq.write_table(whole, tmp_path / "a.parquet", **written)
    rows = list(parquet_rows(tmp_path, [tmp_path / "a.parquet"], None))
    assert [row.value for row in rows if isinstance(row, AnnotationRow)] == whole.to_pylist()
    monkeypatch.setattr(parquet_bounds, "FEW", -1)  # all lists are counted
    monkeypatch.setattr("vlmkit.data.reading.parquet_levels.FEW", few)
    with (tmp_path / "a.parquet").open("rb") as stream:
        for group in parquet_pages.row_groups(stream):
            values = [parquet_bounds._row(stream, column, list(parquet_pages.pages(stream, column)))[0] for column in group.columns]
            assert values[0] >= 39
            assert values[1] >= 12
            assert values[2:4] == [1, 1]
            if not few:
                assert values == [39, 12, 1, 1, 5]


def test_footers_without_measure_are_refused(tmp_path):
    sound = table(1)
    for name, content in (
        ("texts", sound.replace_schema_metadata({str(number): "x" * 9_000_000 for number in range(8)})),
        ("columns", pa.table({str(number): [1] for number in range(10_001)})),
    ):
        pq.write_table(content, tmp_path / f"{name}.parquet")
    found = list(parquet_rows(tmp_path, sorted(tmp_path.iterdir()), None))
    assert all(isinstance(row, Rejected) for row in found)
    assert "schema has 10002 elements" in found[0].detail
    assert "footer has 1" in found[1].detail


DAMAGE = """
import sys
from pathlib import Path
from vlmkit.data.reading.parquet import parquet_rows
file = Path(sys.argv[1])
sound = bytearray(file.read_bytes())
footer = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
for place in range(4, len(sound)):
    for bit in (range(8) if place >= footer else (place % 8,)):
        sound[place] ^= 1 << bit
        file.write_bytes(sound)
        sound[place] ^= 1 << bit
        found = list(parquet_rows(file.parent, [file], None))
        if not found:
            print("lost in silence:", place, bit)
"""


def test_no_flipped_bit_ends_the_process(tmp_path):
    """pyarrow's own access to what a damaged footer says of columns aborts it."""
    pq.write_table(table(20).select(["texts", "lists"]), tmp_path / "a.parquet", store_schema=False, write_statistics=False)
    done = subprocess.run([sys.executable, "-c", DAMAGE, tmp_path / "a.parquet"], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr[-500:]
