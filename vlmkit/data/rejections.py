"""What was left out, and why: counts by source and reason, a few examples of each, a share above which a run stops.

rejections = Rejections()
for sample in rejections.kept(read("coco", folder)):
    ...
rejections.check(limit=0.02)
print(rejections.report())
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

from vlmkit.data.sample import DataError, Rejected, Sample

EXAMPLES = 3
"""Details kept of each reason and source."""
_LONGEST = 300


class TooManyRejected(DataError):  # noqa: N818 (a count, not a fault)
    """More of a source was left out than the set share."""


class Rejections:
    """Counts by (source, reason) beside the number of samples that were seen, rejected ones included."""

    def __init__(self) -> None:
        self._seen: Counter[str] = Counter()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._meant: set[tuple[str, str]] = set()
        self._examples: dict[tuple[str, str], list[str]] = {}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Rejections) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def seen(self, source: str, number: int = 1) -> None:
        """`number` more samples of a source were looked at, whatever became of them."""
        self._seen[source] += number

    def add(self, rejected: Rejected) -> None:
        """One of the samples that were seen cannot be used, or is not wanted."""
        if rejected.meant:
            self._meant.add((rejected.source, rejected.reason))
        self._count(rejected.source, rejected.reason, 1, [rejected.detail])

    def kept(self, items: Iterable[Sample | Rejected]) -> Iterator[Sample]:
        """The samples among what a reader yields; all of it is counted."""
        for item in items:
            self.seen(item.source)
            if isinstance(item, Rejected):
                self.add(item)
            else:
                yield item

    def merge(self, other: Rejections) -> None:
        """Add what another worker or an earlier run counted."""
        self._seen.update(other._seen)
        self._meant |= other._meant
        for (source, reason), number in other._counts.items():
            self._count(source, reason, number, other._examples[source, reason])

    @property
    def sources(self) -> tuple[str, ...]:
        """Sources that were seen, by name."""
        return tuple(sorted({*self._seen, *(source for source, _ in self._counts)}))

    def by_reason(self, source: str) -> dict[str, int]:
        """Rejected samples of a source by reason, the most frequent first."""
        return self._ordered(source, meant=False)

    def left_out(self, source: str) -> dict[str, int]:
        """Samples of a source that filters left out, by reason, the most frequent first."""
        return self._ordered(source, meant=True)

    def _ordered(self, source: str, *, meant: bool) -> dict[str, int]:
        found = {pair[1]: number for pair, number in self._counts.items() if pair[0] == source and (pair in self._meant) == meant}
        return dict(sorted(found.items(), key=lambda pair: (-pair[1], pair[0])))

    def total(self, source: str | None = None) -> int:
        """Rejected samples of a source, or of all."""
        return sum(number for pair, number in self._counts.items() if source in (None, pair[0]) and pair not in self._meant)

    def share(self, source: str) -> float:
        """Rejected samples of a source, from 0 to 1 of those seen."""
        rejected = self.total(source)
        return rejected / max(self._seen[source], rejected, 1)

    def check(self, limit: float, *, at_least: int = 1) -> None:
        """Raises TooManyRejected where more than the share `limit` (0 to 1) of a source was rejected.

        `at_least`: sources of which fewer samples were seen so far are left alone, as one bad sample of three says little.
        """
        for source in self.sources:
            seen, rejected = max(self._seen[source], self.total(source)), self.total(source)
            if seen < at_least or rejected <= limit * seen:
                continue
            reason, number = next(iter(self.by_reason(source).items()))
            raise TooManyRejected(
                f"{rejected} of {seen} samples of {source!r} cannot be used ({rejected / seen:.1%}, allowed {limit:.1%}), "
                f"{number} of them because: {reason} (such as: {self._examples[source, reason][0]}). "
                "Correct the data, or allow a larger share"
            )

    def report(self) -> str:
        """A table in plain text: a line a source and reason, with examples. Empty where every sample was kept."""
        lines = []
        for source in self.sources:
            rejected = self.total(source)
            seen = max(self._seen[source], rejected)
            if rejected:
                lines.append(f"{_one_line(source)}: {rejected:,} of {seen:,} samples rejected ({self.share(source):.2%})")
                lines += self._reasons(source, self.by_reason(source))
            if left_out := self.left_out(source):
                lines.append(f"{_one_line(source)}: {sum(left_out.values()):,} of {seen:,} samples left out by filters")
                lines += self._reasons(source, left_out)
        return "\n".join(lines)

    def _reasons(self, source: str, counts: dict[str, int]) -> Iterator[str]:
        for reason, number in counts.items():
            yield f"{number:>12,}  {_one_line(reason)}"
            yield from (f"{'':14}- {example}" for example in self._examples[source, reason])

    def to_json(self) -> str:
        """Everything, to be read by from_json and by people."""
        rejected = [
            {"source": pair[0], "reason": pair[1], "count": number, "examples": self._examples[pair]}
            | ({"meant": True} if pair in self._meant else {})
            for pair, number in sorted(self._counts.items())
        ]
        return json.dumps({"seen": dict(sorted(self._seen.items())), "rejected": rejected}, indent=2)

    @classmethod
    def from_json(cls, text: str) -> Rejections:
        """Raises DataError for what to_json did not write."""
        new = cls()
        try:
            data: Any = json.loads(text)
            for source, number in data["seen"].items():
                new.seen(source, int(number))
            for row in data["rejected"]:
                if row.get("meant", False):
                    new._meant.add((row["source"], row["reason"]))
                new._count(row["source"], row["reason"], int(row["count"]), row["examples"])
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(f"not a count of rejections ({type(error).__name__}: {error}), expected what to_json wrote") from None
        return new

    def _count(self, source: str, reason: str, number: int, examples: Iterable[str]) -> None:
        self._counts[source, reason] += number
        kept = self._examples.setdefault((source, reason), [])
        kept += [_one_line(example) for example in examples][: EXAMPLES - len(kept)]


def _one_line(text: str) -> str:
    """As a terminal and a file can take it, whatever the data held."""
    text = text if len(text) <= _LONGEST else f"{text[: _LONGEST - 3]}..."
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
