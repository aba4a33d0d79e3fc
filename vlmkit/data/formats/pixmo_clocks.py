"""PixMo clocks (Deitke et al. 2024, arXiv:2409.17146): what time a watch shows; one sample a row of the parquet files.

Columns example_id, text: the time in words, as much of it as the face shows (card of allenai/pixmo-clocks). The images are not
published: whoever draws the faces puts them into images/ under their example_id, with an ending or without. A few rows are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlmkit.data.formats import formats
from vlmkit.data.formats.pixmo_cap import named
from vlmkit.data.formats.pixmo_count import SPLITS
from vlmkit.data.formats.pixmo_points import check
from vlmkit.data.reading.parquet import parquet_rows
from vlmkit.data.reading.places import files
from vlmkit.data.reading.rows import AnnotationRow, each
from vlmkit.data.reading.wording import TIME, ask
from vlmkit.data.sample import Rejected, Sample


@formats.register("pixmo_clocks")
def read(folder: Path, *, split: str = "train") -> Iterator[Sample | Rejected]:
    """split: train or validation."""
    check("split", split, SPLITS[:2])
    source = folder.name

    def sample(row: AnnotationRow) -> Sample:
        name = row.key("example_id")
        shown = named(folder / "images", name) or folder / "images" / name  # which is then missed by that name
        return Sample((shown,), (ask(TIME, row.text("text")),), source, name)

    found = files(folder, f"data/{split}*.parquet", f"{split}*.parquet")
    yield from each(source, parquet_rows(folder, found, ("example_id", "text")), sample)
