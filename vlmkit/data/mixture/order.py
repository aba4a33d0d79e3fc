"""The order of a mixture: which sample of which source stands at each place, for any place at once, with no list in memory.

Sources take turns by their weights. Each goes through its own samples shuffled, and anew in another order when it is
through. A place follows from the seed, the sizes and the weights alone, so nothing has to be kept to go on from one.
"""

from __future__ import annotations

import functools
import hashlib
import math
import random
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, NamedTuple

LISTED = 1 << 16
"""Sources up to this size are shuffled as a list, larger ones by grain's permutation of numbers, which is slow on few."""


class Place(NamedTuple):
    source: int
    """Number of the source."""
    sample: int
    """Number of the sample in its source."""
    epoch: int
    """How often the source was gone through before."""


class Order:
    def __init__(self, sizes: Sequence[int], weights: Sequence[float] | None = None, *, seed: int, epochs: int | None = None) -> None:
        """sizes: samples of each source. weights: how many samples of it stand among the others', in proportion; by
        default its size, so that all are through at the same place. epochs: the mixture ends where the first source has
        been gone through so often; None: it never ends."""
        self.sizes = tuple(sizes)
        self.seed = seed
        self.shares = _whole(self.sizes if weights is None else weights)
        self._total = sum(self.shares)
        self._shuffled = functools.lru_cache(maxsize=2 * len(self.sizes))(self._shuffle)
        self.length: int | None = None
        """Places of the mixture; None where it does not end."""
        if epochs is not None:
            # At any place a count is less than one for each source away from its share of the places.
            late = len(self.sizes)
            ends = [(size * epochs + late) * self._total // share for size, share in zip(self.sizes, self.shares, strict=True)]
            places = range(min(ends) + 1)
            self.length = bisect_right(places, 0, key=lambda place: self._is_beyond(place + 1, epochs))

    def __getitem__(self, place: int) -> Place:
        source, number = self._turn(place)
        epoch, number = divmod(number, self.sizes[source])
        return Place(source, int(self._shuffled(source, epoch)[number]), epoch)

    def counts(self, place: int) -> tuple[int, ...]:
        """Samples of each source that stand before a place."""
        counts, remaining = [], self._total
        for share in self.shares:
            following = place * (remaining - share) // remaining
            counts.append(place - following)
            place, remaining = following, remaining - share
        return tuple(counts)

    def _turn(self, place: int) -> tuple[int, int]:
        """The source whose turn it is, and how many turns it had before: the one whose count grows."""
        now, then, remaining = place, place + 1, self._total
        for source, share in enumerate(self.shares):
            following, afterwards = now * (remaining - share) // remaining, then * (remaining - share) // remaining
            if now - following != then - afterwards:
                return source, now - following
            now, then, remaining = following, afterwards, remaining - share
        raise AssertionError("one of the counts grows")

    def _is_beyond(self, place: int, epochs: int) -> bool:
        return any(count > size * epochs for count, size in zip(self.counts(place), self.sizes, strict=True))

    def _shuffle(self, source: int, epoch: int) -> Any:
        """The numbers of a source in the order of one epoch."""
        size = self.sizes[source]
        if size <= LISTED:
            numbers = list(range(size))
            random.Random(f"{self.seed} {source} {epoch}").shuffle(numbers)
            return array("L", numbers)
        import grain

        # A seed of its own for each source and epoch: grain's own, seed + epoch, gives sources of one size the same orders.
        digest = hashlib.blake2b(f"{self.seed} {source} {epoch}".encode(), digest_size=4).digest()
        return grain.MapDataset.range(size).shuffle(seed=int.from_bytes(digest, "big"))


def _whole(weights: Sequence[float]) -> tuple[int, ...]:
    """The smallest whole numbers in the same proportion, to a billionth."""
    exact = [Fraction(weight).limit_denominator(10**9) for weight in weights]
    scale = math.lcm(*(fraction.denominator for fraction in exact))
    whole = [int(fraction * scale) for fraction in exact]
    divisor = math.gcd(*whole)
    return tuple(number // divisor for number in whole)
