"""Samples that a file lists are left out: those that somebody looked at, or that a classifier found.

So Maya's captions were freed of 7,531 images that LLaVAGuard and Toxic-BERT found toxic (Alam et al. 2024, arXiv:2412.07112).
"""

from __future__ import annotations

from vlmkit.data.filters import Filter, filters
from vlmkit.data.filters.listed import names, read_names
from vlmkit.data.sample import Sample


@filters.register("without")
def without(*, file: str, reason: str = "it is on the list") -> Filter:
    """file: a name a line, of a sample or of an image (`listed.names`). reason: to count by. Raises DataError."""
    listed = read_names(file)

    def keep(sample: Sample) -> str | None:
        return reason if any(name in listed for name in names(sample)) else None

    return keep
