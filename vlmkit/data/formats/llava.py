"""LLaVA conversations (Liu et al. 2023, arXiv:2304.08485): a JSON list of {id, image, conversations}, one sample a row.

Turns are {"from": "human" or "gpt", "value": text}. An image stands where a human turn has <image>; the line breaks around the
tag belong to it. A row without `image` has text only. Images lie below the folder or its images/. Films (`video`, of LLaVA-Video)
are rejected. Read as a stream: one row is in memory, and rows about the same image stay rows of their own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

from vlmkit.data.formats import formats
from vlmkit.data.reading.media import check_films, check_unread
from vlmkit.data.reading.places import below, first_there, one_file
from vlmkit.data.reading.rows import AnnotationRow, each, json_rows
from vlmkit.data.reading.turns import conversation
from vlmkit.data.sample import Rejected, Sample


@formats.register("llava")
def read(folder: Path, *, name: str = "*.json") -> Iterator[Sample | Rejected]:
    """name: the annotation file, where the folder has several; the pretraining set's <name>_meta.json is not one."""
    source = folder.name
    file = one_file(folder, name, but="*_meta.json", way_out="Name one, such as name='llava_v1_5_mix665k.json'")

    def sample(row: AnnotationRow) -> Sample:
        named = _images(row)
        check_films(row.value)
        check_unread(row.value, ("image",), named)
        numbers = itertools.count()
        said = conversation(row.many("conversations"), lambda item: next(numbers))
        images = tuple(first_there(below(folder, image), folder / "images" / image) for image in named)
        # Ids repeat: an instruction set has several rows about one picture.
        return Sample(images, (said,), source, f"{row.name}/{row.key('id')}")

    yield from each(source, json_rows(source, file), sample)


def _images(row: AnnotationRow) -> Sequence[str]:
    named = row.get("image")
    if named is None:
        return ()
    return row.texts("image") if isinstance(named, list) else (row.text("image"),)
