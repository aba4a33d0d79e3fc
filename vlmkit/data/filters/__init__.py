"""Filters: which of a reader's samples are wanted, one file a kind.

    keep = vlmkit.filters["without"](file="toxic.txt")
    for item in filtered(vlmkit.formats["llava"](folder), [keep]):
        ...                     # a Sample, or a Rejected that says why there is none

A filter is one function of a sample that gives None to keep it, or a short stable phrase to count by. `@filters.register("mine")` gives a
name to the function that makes one of its options, which are keywords: numbers and texts, so that a command line can write them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from vlmkit.data.sample import Rejected, Sample
from vlmkit.registry import Catalogue

Filter = Callable[[Sample], str | None]
"""A sample -> None, or why it is left out."""

filters: Catalogue[Callable[..., Filter]] = Catalogue("filter", package=__name__, builtin=("length", "saying", "scored", "without"))
"""Makers of filters by name."""


def filtered(items: Iterable[Sample | Rejected], wanted: Sequence[Filter]) -> Iterator[Sample | Rejected]:
    """What a reader yields, with a Rejected, `meant`, in place of each sample that one of the filters leaves out: the first that does
    names the reason."""
    for item in items:
        reason = next(filter(None, (keep(item) for keep in wanted)), None) if isinstance(item, Sample) else None
        yield item if reason is None else Rejected(item.source, item.id, reason, f"{item.id}: {reason}", meant=True)
