"""Rows of parquet files, a few at a time: memory holds the pages of a few rows, not a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vlmkit.data.reading.parquet_bounds import MAX_ROW, batch_size
from vlmkit.data.reading.parquet_pages import row_groups
from vlmkit.data.reading.places import need
from vlmkit.data.reading.rows import BROKEN, TOO_LARGE, AnnotationRow
from vlmkit.data.sample import Rejected

_BUFFER = 1 << 20
"""Bytes read at once; without it pyarrow reads a column of a row group whole."""


def parquet_rows(folder: Path, files: Iterable[Path], columns: Sequence[str] | None) -> Iterator[AnnotationRow | Rejected]:
    """The rows of all files with those of `columns` that they have, or all; a row's name is '<file below the folder>/<number>'."""
    source = folder.name
    parquet = need("pyarrow.parquet", "parquet files")
    broken = (need("pyarrow", "parquet files").ArrowException, OSError, ValueError)
    for file in files:
        number = 0
        stem = Path(os.path.relpath(file, folder)).with_suffix("")
        try:
            with file.open("rb") as stream:
                groups = row_groups(stream)
                with parquet.ParquetFile(file, buffer_size=_BUFFER) as table:
                    present = None if columns is None else [name for name in columns if name in table.schema_arrow.names]
                    for place, group in enumerate(groups):
                        before = number
                        size = batch_size(stream, group, present)
                        for batch in table.iter_batches(batch_size=size, row_groups=[place], columns=present):
                            for row in range(batch.num_rows):
                                yield _row(source, batch.slice(row, 1), f"{file.name}, row {number}", f"{stem}/{number}")
                                number += 1
                        if number != before + group.rows:
                            raise ValueError(f"a row group says that it has {group.rows}")
                    if number != table.metadata.num_rows:
                        raise ValueError(f"the file says that it has {table.metadata.num_rows}")
        except broken as error:
            problem = str(error).partition("\n")[0]
            yield Rejected(source, file.name, BROKEN, f"{file.name}: {number} rows were read, then: {problem}")


def _row(source: str, row: Any, where: str, name: str) -> AnnotationRow | Rejected:
    if row.nbytes > MAX_ROW:
        return Rejected(source, name, TOO_LARGE, f"{where}: it has {row.nbytes} bytes, expected at most {MAX_ROW}")
    try:
        (value,) = row.to_pylist()
    except UnicodeDecodeError as error:
        return Rejected(source, name, "text is no Unicode", f"{where}: {error}")
    except Exception as error:  # a day of the year 5,879,611, a time zone that nobody knows: each kind has errors of its own
        return Rejected(source, name, "row has wrong fields", f"{where}: {type(error).__name__}: {str(error)[:300]}")
    return AnnotationRow(value, where, name)
