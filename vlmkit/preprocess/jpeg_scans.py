"""The structure of a JPEG, from its markers alone: segments before the first scan, scans, and whether these give every coefficient."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from vlmkit.preprocess.image_errors import Flaw

MAX_SCANS = 50
"""Bound on the passes over a progressive JPEG, each of which walks the whole picture; an ordinary one has about 10."""
MAX_SEGMENTS = 10_000
"""Before the first scan."""
SOS = 0xDA
_EOI, _ALONE = 0xD9, frozenset((0x01, *range(0xD0, 0xD9)))
_FRAMES = frozenset((*range(0xC0, 0xD0),)) - {0xC4, 0xC8, 0xCC}
_PROGRESSIVE = frozenset((0xC2, 0xC6, 0xCA, 0xCE))
_NEXT_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")


ONE_SCAN = 1.05
"""Weight of a pixel (`encoded.surveys`): an array of 3 bytes and Pillow's copy of 4."""
_BYTES, _SCANS = 6.7, 7
"""A pixel of the weight 1 may take so many bytes, and be gone over so many times."""


@dataclass(frozen=True)
class Scans:
    count: int
    """Counting stops beyond MAX_SCANS."""
    lacking: str
    """What no scan gives, in words; empty where nothing is missing."""
    end: int
    """Where the end mark stands, or the file ends."""


def segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Marker and bytes, marker and length among them, of each segment up to the first scan's. Raises Flaw."""
    at = 2
    for _ in range(MAX_SEGMENTS):
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        if at + 4 > len(data):
            raise Flaw(f"it ends at byte {len(data)}, before its first scan")
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if data[at] != 0xFF or marker in _ALONE or marker == _EOI or length < 2:
            raise Flaw(f"no segment begins at byte {at}")
        if at + 2 + length > len(data):
            raise Flaw(f"it ends at byte {len(data)}, in a segment of {length} bytes")
        yield marker, data[at : at + 2 + length]
        if marker == SOS:
            return
        at += 2 + length
    raise Flaw(f"it has more than {MAX_SEGMENTS} segments before its first scan")


def end_of_head(data: bytes) -> int:
    """Where the first scan's coded data begin. Raises Flaw."""
    at = 2
    for _, segment in segments(data):
        while data[at : at + 2] == b"\xff\xff":
            at += 1
        at += len(segment)
    return at


def scans_of(data: bytes) -> Scans:
    """The scans of a JPEG, found by walking its markers as a decoder does."""
    count, at, end = 0, 2, len(data)
    progressive = False
    missing: dict[int, list[int]] = {}
    """Of each component, bits that are still to come by coefficient; -1 where none came."""
    while count <= MAX_SCANS and (found := _NEXT_MARKER.search(data, at)):
        marker, at = data[found.start() + 1], found.end()
        if marker == _EOI:
            end = found.start()
            break
        length = int.from_bytes(data[at : at + 2], "big")
        body = data[at + 2 : at + length]
        if marker in _FRAMES and len(body) > 5:
            progressive = marker in _PROGRESSIVE
            missing = {body[place]: [-1] * 64 for place in range(6, min(len(body), 6 + 3 * body[5]), 3)}
        elif marker == SOS:
            count += 1
            _note(body, missing, progressive)
        at += length
    lacking = [bits for bits in missing.values() if any(bits)]
    words = "" if not lacking else "it has no scan for a part of its colours or details; is it cut short?"
    return Scans(count, words, end)


def weight_of(frame: bytes, scans: int) -> float:
    """Of a pixel: with several scans a decoder keeps the coefficients of all, of 2 bytes, and walks them each time.

    frame: the body of the frame header."""
    if scans < 2 or len(frame) < 6:
        return ONE_SCAN
    factors = [(frame[place] >> 4, frame[place] & 15) for place in range(7, min(len(frame), 6 + 3 * frame[5]), 3)]
    widest = max((wide for wide, _ in factors), default=1) * max((high for _, high in factors), default=1)
    kept = 2 * sum(wide * high for wide, high in factors) / max(widest, 1)
    return max(ONE_SCAN, (kept + 3) / _BYTES, scans / _SCANS)


def _note(body: bytes, missing: dict[int, list[int]], progressive: bool) -> None:
    """A scan gives coefficients of some components, down to some bit."""
    parts = body[0] if body else 0
    if len(body) < 4 + 2 * parts:
        return
    first, last, bits = body[1 + 2 * parts : 4 + 2 * parts]
    for place in range(parts):
        coefficients = missing.get(body[1 + 2 * place])
        if coefficients is None:
            continue
        if not progressive:
            coefficients[:] = [0] * 64
        elif last < 64:
            coefficients[first : last + 1] = [bits & 15] * (last + 1 - first)
