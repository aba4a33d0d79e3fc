"""COCO captions (Chen et al. 2015, arXiv:1504.00325): one sample an image, one conversation a caption.

annotations/captions_<split>.json lists `images` (id, file_name) and `annotations` (image_id, caption); images lie in <split>/
or images/<split>/. In memory: the captions, about 100 bytes each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from vlmkit.data.formats import formats
from vlmkit.data.reading.places import below, first_there, one_file
from vlmkit.data.reading.rows import BROKEN, AnnotationRow, Groups, each, json_rows
from vlmkit.data.reading.wording import CAPTION, ask
from vlmkit.data.sample import Rejected, Sample


@formats.register("coco")
def read(folder: Path, *, split: str = "train") -> Iterator[Sample | Rejected]:
    """split: "train", "val", or with the year where several are there, "train2017"."""
    source = folder.name
    way_out = "Name the split, such as split='val2017'"
    file = one_file(folder, f"annotations/captions_{split}*.json", f"captions_{split}*.json", way_out=way_out)
    release = file.stem.removeprefix("captions_")
    pictures = first_there(folder / release, folder / "images" / release)

    captions, broken = Groups(), False
    captioned = json_rows(source, file, "annotations")
    for item in each(source, captioned, lambda row: captions.add(row.key("image_id"), row.text("caption"))):
        if item is not None:
            broken |= item.reason == BROKEN
            yield item

    def sample(row: AnnotationRow) -> Sample:
        name = row.key("id")
        asked = tuple(ask(CAPTION, caption) for (caption,) in captions.pop(name))
        return Sample((below(pictures, row.text("file_name")),), asked, source, name)

    for found in each(source, json_rows(source, file, "images"), sample):
        # The file is read a second time; that it is broken was said.
        if not (broken and isinstance(found, Rejected) and found.reason == BROKEN):
            yield found
    for name, lost in captions:
        yield Rejected(source, name, "image is not listed", f"{file.name} has {len(lost)} captions of image {name}, but no such image")
