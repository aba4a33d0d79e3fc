"""The Cauldron (Laurencon et al. 2024, arXiv:2405.02246) and FineVision (2025): parquet files with the images in them.

Columns `images`, a list of {bytes, path}, and `texts`, a list of {user, assistant}: the turns of one conversation about all
images, which stand before the first question. One sample a row. A few rows are in memory, and a row group as it is stored.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vlmkit.data.formats import formats
from vlmkit.data.reading.media import FILMS_AND_SOUNDS, check_films
from vlmkit.data.reading.parquet import parquet_rows
from vlmkit.data.reading.places import below, files
from vlmkit.data.reading.rows import AnnotationRow, brief, each
from vlmkit.data.reading.wording import ask
from vlmkit.data.sample import Image, Rejected, Sample


@formats.register("cauldron")
def read(folder: Path) -> Iterator[Sample | Rejected]:
    source = folder.name

    def image(row: AnnotationRow, cell: Any) -> Image:
        data, path = (cell.get("bytes"), cell.get("path")) if isinstance(cell, dict) else (None, None)
        if isinstance(data, bytes):
            return data
        if isinstance(path, str):
            return below(folder, path)
        raise row.wrong(f"expected an image {{bytes, path}}, got {brief(cell)}")

    def sample(row: AnnotationRow) -> Sample:
        if "images" not in row.value:  # in another format they would be lost, and the text be read without them
            raise row.wrong("there is no column 'images'")
        check_films(row.value)
        images = tuple(image(row, cell) for cell in row.many("images")) if row.get("images") is not None else ()
        messages: list[Any] = []
        for turn in row.many("texts"):
            user, assistant = (turn.get("user"), turn.get("assistant")) if isinstance(turn, dict) else (None, None)
            if not isinstance(user, str) or not isinstance(assistant, str):
                raise row.wrong(f"expected turns {{user, assistant}}, got {brief(turn)}")
            messages += ask(user, assistant, 0 if messages else len(images))
        return Sample(images, (messages,), source, row.name)

    found = files(folder, "data/*.parquet", "*.parquet", "*/*.parquet")
    yield from each(source, parquet_rows(folder, found, ("images", "texts", *FILMS_AND_SOUNDS)), sample)
