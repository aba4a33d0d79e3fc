"""First-fit packing: which of many samples stand together in rows of a fixed length."""

from __future__ import annotations

from collections.abc import Sequence


def first_fit(lengths: Sequence[int], capacity: int) -> list[list[int]]:
    """Rows of numbers into `lengths`; the lengths of a row's sum to at most `capacity`.

    The longest goes first, each into the first row that has room left (Johnson 1973: at most 11/9 of the fewest rows
    possible, and in practice all but the last are full). Raises ValueError for a length that no row can hold.
    """
    rows: list[list[int]] = []
    room: list[int] = []
    first = 0
    shortest = min(lengths, default=0)
    for number in sorted(range(len(lengths)), key=lambda number: -lengths[number]):
        length = lengths[number]
        if length > capacity:
            raise ValueError(f"a sample of {length} tokens does not fit into a row of {capacity}")
        while first < len(rows) and room[first] < shortest:
            first += 1
        place = next((place for place in range(first, len(rows)) if room[place] >= length), len(rows))
        if place == len(rows):
            rows.append([])
            room.append(capacity)
        rows[place].append(number)
        room[place] -= length
    return rows
