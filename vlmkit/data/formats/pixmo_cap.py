"""PixMo captions (Deitke et al. 2024, arXiv:2409.17146): long descriptions, one sample a row of the parquet files.

Columns image_url, caption; the transcripts that a caption was written from are not read. Images are published by URL. One that
was downloaded is found in images/ or pixmo_images/ under the SHA-256 of its URL, as Molmo's own code names it, with or without
an ending. A few rows are in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

from vlmkit.data.formats import formats
from vlmkit.data.reading.parquet import parquet_rows
from vlmkit.data.reading.places import files, is_there
from vlmkit.data.reading.rows import AnnotationRow, each
from vlmkit.data.reading.urls import Fetch, fetched
from vlmkit.data.reading.wording import DESCRIPTION, ask
from vlmkit.data.sample import Image, Rejected, Sample

ENDINGS = ("", ".jpg", ".jpeg", ".png", ".webp")


@formats.register("pixmo_cap")
def read(folder: Path, *, fetch: Fetch | None = None) -> Iterator[Sample | Rejected]:
    """fetch: gets images that are not on disk; without it their rows are rejected."""
    source = folder.name

    def sample(row: AnnotationRow) -> Sample:
        return Sample((image(folder, row.text("image_url"), fetch),), (ask(DESCRIPTION, row.text("caption")),), source, row.name)

    found = files(folder, "data/*.parquet", "*.parquet")
    yield from each(source, parquet_rows(folder, found, ("image_url", "caption")), sample)


def image(folder: Path, url: str, fetch: Fetch | None) -> Image:
    """The image that was downloaded from a URL, or the bytes there. Raises Unusable."""
    name = sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    for place in ("images", "pixmo_images"):
        for ending in ENDINGS:
            path = folder / place / f"{name}{ending}"
            if is_there(path):
                return path
    return fetched(url, fetch)
