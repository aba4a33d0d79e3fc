"""Rows of parquet files, a few at a time: memory holds a row group as it is stored, not a file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vlmkit.data.reading.places import need
from vlmkit.data.reading.rows import BROKEN, AnnotationRow
from vlmkit.data.sample import Rejected

BATCH = 16
"""Rows decoded at once; a row may hold several images."""


def parquet_rows(folder: Path, files: Iterable[Path], columns: Sequence[str] | None) -> Iterator[AnnotationRow | Rejected]:
    """The rows of all files with those of `columns` that they have, or all; a row's name is '<file below the folder>/<number>'."""
    source = folder.name
    parquet = need("pyarrow.parquet", "parquet files")
    broken = (need("pyarrow", "parquet files").ArrowException, OSError, ValueError)
    for file in files:
        number = 0
        stem = Path(os.path.relpath(file, folder)).with_suffix("")
        try:
            with parquet.ParquetFile(file) as table:
                present = None if columns is None else [name for name in columns if name in table.schema_arrow.names]
                for batch in table.iter_batches(batch_size=BATCH, columns=present):
                    for place in range(batch.num_rows):
                        where = f"{file.name}, row {number}"
                        yield _row(source, batch, place, where, f"{stem}/{number}")
                        number += 1
                if number != table.metadata.num_rows:
                    raise ValueError(f"the file says that it has {table.metadata.num_rows}")
        except broken as error:
            problem = str(error).partition("\n")[0]
            yield Rejected(source, file.name, BROKEN, f"{file.name}: {number} rows were read, then: {problem}")


def _row(source: str, batch: Any, place: int, where: str, name: str) -> AnnotationRow | Rejected:
    try:
        (value,) = batch.slice(place, 1).to_pylist()
    except ValueError as error:  # a text that is not UTF-8
        return Rejected(source, name, "text is no Unicode", f"{where}: {error}")
    return AnnotationRow(value, where, name)
