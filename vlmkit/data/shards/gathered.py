"""Several places of shards as one: a source is looked up by its name in each of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmkit.data.sample import DataError
from vlmkit.data.shards.index import has_index, read_summary
from vlmkit.data.shards.places import Place


@dataclass(frozen=True)
class Gathered:
    """What a place is for a mixture, of several: each holds a folder of shards for a source, or is that folder itself."""

    places: tuple[Place, ...]

    def __truediv__(self, name: str) -> Place:
        """The folder of a source. Raises DataError where several places have one of that name."""
        found = [where / name for where in self.places if has_index(where / name)]
        found += [where for where in self.places if where.resolve().name == name and has_index(where)]
        if len(found) > 1:
            raise DataError(f"source {name!r} lies at {' and at '.join(map(str, found))}; give one of them another name")
        return found[0] if found else self.places[0] / name

    def __str__(self) -> str:
        return ", ".join(map(str, self.places))

    def resolve(self) -> Gathered:
        return Gathered(tuple(where.resolve() for where in self.places))

    def sources(self) -> dict[str, int]:
        """The names of all sources and how many samples each has. Of an address only its own name is known. Raises DataError where there
        are none."""
        found: list[Place] = []
        for where in self.places:
            if has_index(where):
                found.append(where)
            elif isinstance(where, Path):
                found += [folder for folder in sorted(where.iterdir()) if has_index(folder)]
        if not found:
            raise DataError(f"{self} has no folder that 'vlmkit data pack' wrote; of an address, name the folder of one source")
        names = [where.resolve().name for where in found]
        return {name: read_summary(self / name).samples for name in names}
