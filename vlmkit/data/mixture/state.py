"""Where a mixture stands: a few numbers, written as JSON that people can read.

    {"version": 1, "batch": 120, "streams": [{"window": 3, "row": 17}], "mixture": {...}, "rejected": {...}, "cut": {...}}

`batch` counts the micro-batches that all processes took together. `mixture` is what the order follows from: a state is
continued by the same mixture only. Nothing in it grows with the number of steps.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vlmkit.data.rejections import Rejections
from vlmkit.data.sample import DataError
from vlmkit.differences import differences

VERSION = 1


class MixtureStateError(DataError):
    """A state that this mixture cannot go on from: what differs, both values."""


@dataclass(frozen=True)
class Position:
    """Where a stream stands: the window that it is in, and how many rows of it were taken."""

    window: int
    row: int = 0


@dataclass
class MixtureState:
    mixture: dict[str, Any]
    """What the order follows from."""
    batch: int
    streams: list[Position | None]
    """None where another process knows."""
    rejected: Rejections = field(default_factory=Rejections)
    cut: Rejections = field(default_factory=Rejections)
    """Samples that were kept without their last turns."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON."""
        return {
            "version": VERSION,
            "batch": self.batch,
            "streams": [position and vars(position) for position in self.streams],
            "mixture": self.mixture,
            "rejected": json.loads(self.rejected.to_json()),
            "cut": json.loads(self.cut.to_json()),
        }

    @classmethod
    def from_dict(cls, found: Mapping[str, Any], mixture: dict[str, Any]) -> MixtureState:
        """Raises MixtureStateError where the state is another mixture's, with every value that differs."""
        if found.get("version") != VERSION:
            raise MixtureStateError(f"the state of the data has version {found.get('version')!r}, this vlmkit reads {VERSION}")
        differing = [
            f"{path}: saved with {json.dumps(one)}, now {json.dumps(other)}"
            for path, one, other in differences(found["mixture"], json.loads(json.dumps(mixture)))
        ]
        if differing:
            lines = "\n  ".join(differing[:12])
            raise MixtureStateError(f"the data is not what the state was saved with:\n  {lines}\nContinue with the same, or start anew")
        streams = [position and Position(**position) for position in found["streams"]]
        rejected, cut = (Rejections.from_json(json.dumps(found[name])) for name in ("rejected", "cut"))
        return cls(mixture, found["batch"], streams, rejected, cut)


def merge_states(states: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The state of all processes from each one's own, all taken after the same step."""
    first, *others = states
    merged = MixtureState.from_dict(first, first["mixture"])
    for state in others:
        other = MixtureState.from_dict(state, first["mixture"])
        if other.batch != merged.batch:
            raise MixtureStateError(f"processes stand at batches {merged.batch} and {other.batch}; save all after the same step")
        merged.streams = [mine or theirs for mine, theirs in zip(merged.streams, other.streams, strict=True)]
        merged.rejected.merge(other.rejected)
        merged.cut.merge(other.cut)
    return merged.to_dict()
