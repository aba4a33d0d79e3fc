"""A JSON value that is large in its file: what it holds is counted before it is made, for Python may need twenty times as much.

64 MB of `[[],[],[], ...` become 1.6 GB of lists, and a text of 64 MB in which one letter is wide becomes 256 MB. Quotes, brackets and
commas are found in pieces of the text, and only what is within the bound is decoded.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    _Codes = NDArray[np.unsignedinteger[Any]]

CHUNK = 1 << 20
"""Characters or bytes up to which a value is small: whatever they hold is made at once."""
LONGEST = 1 << 26
"""Characters of a value, 67 million, where each value in it counts VALUE more, and a text with letters beyond ASCII four times."""
VALUE = 64
"""So an element has at most a million commas, colons and opening brackets."""
BLANKS = " \t\n\r"


class TooLarge(ValueError):  # noqa: N818 (a state of the data)
    """What a value would take is over the bound."""


def from_pieces(pieces: Iterable[str]) -> Any:
    """The value that these pieces are together. Raises TooLarge, EOFError for blanks alone, and what json.loads raises."""
    value: LargeValue | None = None
    end: int | None = None
    for piece in pieces:
        if value is None:
            piece = piece.lstrip(BLANKS)
            value = LargeValue() if piece else None
        if value is None or not piece:
            continue
        if value.is_too_large:
            break
        rest = piece
        if end is None and (end := value.end(piece)) is not None:
            rest = piece[end:]
        if end is not None and rest.strip(BLANKS):
            raise ValueError("Extra data")
    if value is None:
        raise EOFError
    return value.made()


class LargeValue:
    """An object, list or text that begins with the first character of the first piece."""

    def __init__(self, *, kept: bool = True) -> None:
        """kept: whether the value is wanted, and not only its end."""
        self._kept = kept
        self._size = 0
        self._pieces: list[str] = []
        self._depth = 0
        self._in_text = self._after_slash = False
        self._length = self._beyond = 0
        """Of the text in which a piece ended: its characters, and those beyond ASCII."""

    def end(self, piece: str) -> int | None:
        """Take a piece in; where in it the value ends, None where it goes on."""
        import numpy as np

        ascii = piece.isascii()
        codes: _Codes = (
            np.frombuffer(piece.encode(), np.uint8) if ascii else np.frombuffer(piece.encode("utf-32-le", "surrogatepass"), np.uint32)
        )
        escaped = self._escaped(codes == ord("\\"))
        quotes = (codes == ord('"')) & ~escaped
        in_text = np.bitwise_xor.accumulate(quotes) ^ self._in_text
        outside = ~(in_text | quotes)
        opening = outside & ((codes == ord("[")) | (codes == ord("{")))
        closing = outside & ((codes == ord("]")) | (codes == ord("}")))
        depth = self._depth + np.cumsum(opening.view(np.int8) - closing.view(np.int8), dtype=np.int32)
        ends = np.flatnonzero((depth == 0) & (closing | (quotes & ~in_text)))
        end = int(ends[0]) + 1 if len(ends) else None
        if self._kept and not self.is_too_large:
            values = opening | (outside & ((codes == ord(",")) | (codes == ord(":"))))
            self._size += VALUE * int(np.count_nonzero(values[:end]))
            beyond = (escaped & (codes == ord("u"))) | (codes > 127)
            self._count_texts(np.flatnonzero(quotes[:end]), beyond[:end])
            self._keep(piece[:end] if ascii else _in_ascii(codes[:end]))
        self._depth, self._in_text = int(depth[-1]), bool(in_text[-1])
        return end

    @property
    def is_too_large(self) -> bool:
        return self._size + 3 * self._length * bool(self._beyond) > LONGEST

    def made(self) -> Any:
        """Raises TooLarge, and what json.loads raises."""
        if self.is_too_large:
            raise TooLarge(f"more than {LONGEST} characters, where a value in it counts for {VALUE} and a letter beyond ASCII for 4")
        text = "".join(self._pieces)
        self._pieces.clear()
        return json.loads(text)

    def _keep(self, piece: str) -> None:
        self._size += len(piece)
        self._pieces.append(piece)
        if self.is_too_large:
            self._pieces.clear()

    def _escaped(self, slashes: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """The characters behind an odd number of backslashes."""
        import numpy as np

        if not (self._after_slash or slashes.any()):
            return slashes
        places = np.arange(len(slashes), dtype=np.int32)
        others = np.maximum.accumulate(np.where(slashes, -1, places))
        odd = ((places - others + (others == -1) * self._after_slash) % 2).astype(bool)
        escaped = np.concatenate(([self._after_slash], odd[:-1]))
        self._after_slash = bool(odd[-1])
        return escaped

    def _count_texts(self, quotes: NDArray[np.intp], beyond: NDArray[np.bool_]) -> None:
        """Each text with letters beyond ASCII three times more, from the places of quotes in a piece."""
        import numpy as np

        starts, ends = np.concatenate(([0], quotes + 1)), np.concatenate((quotes, [len(beyond)]))
        total = np.concatenate(([0], np.cumsum(beyond, dtype=np.int32)))
        lengths, found = ends - starts, total[ends] - total[starts]
        is_text = (np.arange(len(starts)) + self._in_text) % 2 == 1
        lengths[0] += self._length
        found[0] += self._beyond
        self._size += 3 * int(lengths[:-1][is_text[:-1] & (found[:-1] > 0)].sum())
        self._length, self._beyond = (int(lengths[-1]), int(found[-1])) if is_text[-1] else (0, 0)


def _in_ascii(codes: _Codes) -> str:
    """The same JSON with letters beyond ASCII as escapes, so that one of them does not make all letters wide."""
    import numpy as np

    ascii, paired = codes < 0x80, codes > 0xFFFF
    single = ~(ascii | paired)
    lengths = np.where(ascii, 1, np.where(paired, 12, 6))
    places = np.cumsum(lengths) - lengths
    high, low = 0xD7C0 + (codes[paired] >> 10), 0xDC00 + (codes[paired] & 0x3FF)
    units = np.concatenate((codes[single], high, low))
    at = np.concatenate((places[single], places[paired], places[paired] + 6))
    text = np.empty(int(lengths.sum()), np.uint8)
    text[places[ascii]] = codes[ascii]
    text[at], text[at + 1] = ord("\\"), ord("u")
    digits = np.frombuffer(b"0123456789abcdef", np.uint8)
    for number, shift in enumerate((12, 8, 4, 0)):
        text[at + 2 + number] = digits[(units >> shift) & 15]
    return text.tobytes().decode()
