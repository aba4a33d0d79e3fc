"""Readers: from a folder as a data set's authors publish it to samples, one file a format.

    for item in vlmkit.formats["coco"](Path("coco")):
        ...                     # a Sample, or a Rejected that says why there is none

A reader is one function of a folder; `@formats.register("mine")` gives it a name. Whatever a registered reader yields is
looked at (`vlmkit.data.reading.checks`), so that a reader itself neither looks for files nor judges texts.
"""

from __future__ import annotations

from collections.abc import Callable

from vlmkit.data.reading.checks import Reader, checked
from vlmkit.registry import Catalogue


class Formats(Catalogue[Reader]):
    """Readers by name."""

    def register(self, kind: str) -> Callable[[Reader], Reader]:
        file = super().register(kind)
        return lambda reader: file(checked(reader))


formats = Formats(
    "format",
    package=__name__,
    builtin=(
        "cauldron",
        "chat",
        "coco",
        "docvqa",
        "gqa",
        "llava",
        "pixmo_cap",
        "pixmo_clocks",
        "pixmo_count",
        "pixmo_points",
        "redcaps",
        "synthtext",
        "textvqa",
        "webdataset",
    ),
)
