"""RedCaps (Desai et al. 2021, arXiv:2111.11431): one sample a post.

annotations/<subreddit>_<year>.json lists `annotations` (image_id, subreddit, caption, url); the image is
images/<subreddit>/<image_id>.jpg where it could be downloaded. Rows and images are joined by that name, never by position.
Read as a stream: one row is in memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlmkit.data.formats import formats
from vlmkit.data.reading.places import below, files, is_there
from vlmkit.data.reading.rows import AnnotationRow, each, json_rows
from vlmkit.data.reading.urls import Fetch, fetched
from vlmkit.data.reading.wording import CAPTION, ask
from vlmkit.data.sample import Image, Rejected, Sample


@formats.register("redcaps")
def read(folder: Path, *, fetch: Fetch | None = None) -> Iterator[Sample | Rejected]:
    """fetch: gets images that are not on disk; without it they are rejected as missing."""
    source = folder.name

    def sample(row: AnnotationRow) -> Sample:
        subreddit, name = row.text("subreddit"), row.key("image_id")
        path = below(folder / "images", f"{subreddit}/{name}.jpg")
        image: Image = path if fetch is None or is_there(path) else fetched(row.text("url"), fetch)
        return Sample((image,), (ask(CAPTION, row.text("caption")),), source, f"{subreddit}/{name}")

    for file in files(folder, "annotations/*.json"):
        yield from each(source, json_rows(source, file, "annotations"), sample)
