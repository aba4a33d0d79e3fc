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
MAX_DICTIONARY = 1 << 26
"""Bytes of values that rows share, of one column and row group: each row that is decoded has a copy of its own."""
_SMALL = 1 << 22
"""Bytes of such values up to which BATCH rows are decoded at once; above, one."""


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
                shared = _shared(file, table.metadata)
                if shared > MAX_DICTIONARY:
                    raise ValueError(f"its rows share values of {shared} bytes, expected at most {MAX_DICTIONARY}")
                for batch in table.iter_batches(batch_size=BATCH if shared <= _SMALL else 1, columns=present):
                    for place in range(batch.num_rows):
                        where = f"{file.name}, row {number}"
                        yield _row(source, batch, place, where, f"{stem}/{number}")
                        number += 1
                if number != table.metadata.num_rows:
                    raise ValueError(f"the file says that it has {table.metadata.num_rows}")
        except broken as error:
            problem = str(error).partition("\n")[0]
            yield Rejected(source, file.name, BROKEN, f"{file.name}: {number} rows were read, then: {problem}")


def _shared(file: Path, metadata: Any) -> int:
    """Bytes of the largest dictionary of any column and row group, as the header of its page says."""
    most = 0
    with file.open("rb") as stream:
        for group in range(metadata.num_row_groups):
            for column in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(column)
                if chunk.has_dictionary_page:
                    stream.seek(chunk.dictionary_page_offset)
                    most = max(most, _page_bytes(stream.read(16)))
    return most


def _page_bytes(header: bytes) -> int:
    """Bytes of a page when it is unpacked: the second field of its header, after its kind, both whole numbers in Thrift's compact form.

    0 for a header that is written otherwise, which pyarrow refuses."""
    at, values = 0, []
    for _ in range(2):
        if header[at : at + 1] != b"\x15":  # the next field, a whole number of 32 bits
            return 0
        at += 1
        value = shift = 0
        while at < len(header):
            value |= (header[at] & 0x7F) << shift
            shift, at = shift + 7, at + 1
            if header[at - 1] < 0x80:
                break
        values.append(value >> 1 if value % 2 == 0 else 0)
    return values[1]


def _row(source: str, batch: Any, place: int, where: str, name: str) -> AnnotationRow | Rejected:
    try:
        (value,) = batch.slice(place, 1).to_pylist()
    except ValueError as error:  # a text that is not UTF-8
        return Rejected(source, name, "text is no Unicode", f"{where}: {error}")
    return AnnotationRow(value, where, name)
