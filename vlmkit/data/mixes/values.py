"""What a mixture of data is: groups of sources, and how often each is drawn."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from vlmkit.data.sample import DataError


@dataclass(frozen=True, kw_only=True)
class Ingredient:
    """A source: what is read, how, and what of it is wanted."""

    name: str
    """The source's, and that of its folder of shards."""
    published: str
    """Where its authors publish it."""
    format: str
    """As `vlmkit data pack --format` takes it."""
    filters: tuple[str, ...] = ()
    """As `vlmkit data pack --filter` takes them."""
    counts_as: int | None = None
    """Samples that it counts as, where the paper weighs it as if it were smaller; None: as many as it has."""


@dataclass(frozen=True, kw_only=True)
class Group:
    share: float
    """Of all samples that are drawn, beside the other groups' shares."""
    sources: tuple[Ingredient, ...]


@dataclass(frozen=True, kw_only=True)
class Mix:
    """Groups share out what is drawn; in a group a source is drawn in proportion to its size, or to the root of it."""

    name: str
    about: str
    """A sentence or two: whose it is, what of it is not here."""
    groups: tuple[Group, ...]
    by: Literal["size", "root"] = "size"
    conversations: Literal["alike", "root"] = "alike"
    """What tokens count where an image has several conversations: the field of a stage of this name."""

    @property
    def sources(self) -> tuple[Ingredient, ...]:
        return tuple(source for group in self.groups for source in group.sources)

    def weights(self, sizes: Mapping[str, int]) -> dict[str, float]:
        """Samples of each source among the others', in proportion and summing to 1, from how many each has. A source may be missing: the
        others of its group take its share, and a group without sources leaves its share to the others.

        Raises DataError for a size of a source that the mixture does not have, below 1, or where none is left.
        """
        names = [source.name for source in self.sources]
        for name, size in sizes.items():
            if name not in names or size < 1:
                expected = f"1 or more samples of each of {', '.join(names)}"
                raise DataError(f"mixture {self.name!r} was told that {name!r} has {size} samples, expected {expected}")
        found: dict[str, float] = {}
        for group in self.groups:
            parts = {source.name: self._part(source, sizes[source.name]) for source in group.sources if source.name in sizes}
            found |= {name: group.share * part / sum(parts.values()) for name, part in parts.items()}
        if not found:
            raise DataError(f"mixture {self.name!r} has none of its sources: {', '.join(names)}")
        whole = sum(found.values())
        return {name: weight / whole for name, weight in found.items()}

    def _part(self, source: Ingredient, size: int) -> float:
        counted = source.counts_as or size
        return math.sqrt(counted) if self.by == "root" else float(counted)
