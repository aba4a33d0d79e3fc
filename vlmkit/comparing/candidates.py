"""What is compared: one model in which the parts of one family, or of several, are exchanged."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vlmkit.architecture import Architecture

FAMILIES = ("policy", "encoder", "connector", "layout", "fusion", "language_model")
SHARED = ("encoder", "language_model")
"""Parts that are warmed up before a connector stands between them."""


@dataclass(frozen=True)
class Candidate:
    name: str
    """What was exchanged, as it was written: 'mlp:depth=3', or 'squash:size=56 mlp' of two families."""
    architecture: Architecture
    warmed: Architecture
    """The model in which its tower and its language model learn before: the same for all candidates that share these."""


def candidates(base: Architecture, exchanged: Mapping[str, Sequence[str]]) -> list[Candidate]:
    """Every combination of what is exchanged, in the order in which it was written. exchanged: parts by family, as `replace` takes them.

    Raises ValueError for fewer than two, or the same one twice; SpecError or RegistryError for one that does not fit.
    """
    families = [family for family in FAMILIES if exchanged.get(family)]
    found = []
    for choice in itertools.product(*(exchanged[family] for family in families)):
        parts = dict(zip(families, choice, strict=True))
        name = " ".join(choice)
        whole = base.replace(**parts, name=f"{base.name}+{'+'.join(choice)}").validate()
        # The connector only brings the two together: which one it is, neither learns from.
        warmed = base.replace(**{family: part for family, part in parts.items() if family != "connector"}, name=f"{base.name}-warm")
        found.append(Candidate(name, whole, warmed if not warmed.problems() else whole.replace(name=warmed.name)))
    names = [candidate.name for candidate in found]
    if len(found) < 2 or len(set(names)) < len(names):
        raise ValueError(f"a comparison takes two or more candidates, each once; got {', '.join(names) or 'none'}")
    return found
