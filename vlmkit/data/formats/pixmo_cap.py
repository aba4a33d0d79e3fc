"""PixMo captions (Deitke et al. 2024, arXiv:2409.17146): long descriptions, one sample a row of the parquet files.

Columns image_url, caption, transcripts: what people said of the image, from which the caption was written. With `transcripts` each of
these is an answer of its own, as Molmo's captioner learns both. Images are published by URL. One that was downloaded is found in images/
or pixmo_images/ under the SHA-256 of its URL, as Molmo's own code names it, with or without an ending. A few rows are in memory.
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
from vlmkit.data.reading.wording import DESCRIPTION, SPOKEN, ask
from vlmkit.data.sample import Image, Rejected, Sample

ENDINGS = ("", ".jpg", ".jpeg", ".png", ".webp")


@formats.register("pixmo_cap")
def read(folder: Path, *, transcripts: bool = False, fetch: Fetch | None = None) -> Iterator[Sample | Rejected]:
    """transcripts: whether what was said is taught beside the caption. fetch: gets images that are not on disk; without it their rows
    are rejected."""
    source = folder.name

    def sample(row: AnnotationRow) -> Sample:
        said = [ask(DESCRIPTION, row.text("caption"))]
        if transcripts:
            said += [ask(SPOKEN, words) for words in row.texts("transcripts")]
        return Sample((image(folder, row.text("image_url"), fetch),), tuple(said), source, row.name)

    found = files(folder, "data/*.parquet", "*.parquet")
    yield from each(source, parquet_rows(folder, found, ("image_url", "caption", "transcripts")), sample)


def image(folder: Path, url: str, fetch: Fetch | None) -> Image:
    """The image that was downloaded from a URL, or the bytes there. Raises Unusable."""
    name = sha256(url.encode("utf-8", "surrogatepass")).hexdigest()
    return next((path for place in ("images", "pixmo_images") if (path := named(folder / place, name))), None) or fetched(url, fetch)


def named(folder: Path, name: str) -> Path | None:
    """The image of this name in a folder, with an ending or without."""
    return next((path for ending in ENDINGS if is_there(path := folder / f"{name}{ending}")), None)
