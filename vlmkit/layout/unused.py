"""Tokens that a tokenizer has and its chat template does not use: some are called after images, some are kept in reserve.

Vocabularies are published with both, so that an image can be marked without a new row of the embedding: <|image_pad|> and <|vision_start|>
in Qwen2.5's, [IMG] and [IMG_BREAK] in Tekken, <|reserved_special_token_0|> in Llama 3's, <|extra_id_0|> in OLMo's, <unused0> in Gemma's,
<|EXTRA_0_TOKEN|> in Cohere's, <SPECIAL_20> in Mistral's.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping

_RESERVED = re.compile(r"reserved|unused|extra|place.?holder|dummy|(special|control)_\d", re.IGNORECASE)
_SIGHT = ("image", "img", "vision", "visual")
"""Of two tokens that would do, the one that is called by an earlier word is taken."""
_ROLES = (
    ("video", re.compile(r"video|film")),
    ("row_end", re.compile(r"break|new.?line|row")),
    ("start", re.compile(r"(?<![a-z])(start|begin|bo[is])(?![a-z])")),
    ("end", re.compile(r"(?<![a-z])(end|eo[is])(?![a-z])|^</")),
    ("boundary", re.compile(r"around")),
    ("other", re.compile(r"global|thumb|tile|(?<![a-z])(gen|ref|edit)")),
)
"""What a token called after images is, where it is not the place of one, by words of its name."""
_FIELDS = {
    "placeholder": "place",
    "video_placeholder": "video",
    "start": "start",
    "end": "end",
    "image_end": "end",
    "row_end": "row_end",
    "boundary": "boundary",
}
"""The role of a token that stands in this field of a layout; for a field that is not named here a reserved token has to do."""


def unused_for(field: str, tokens: Mapping[str, int], taken: Container[str], written: str) -> str | None:
    """The token that may stand in a field of a layout: one that is called after what it is to mark, or else the first reserved one that
    the chat template, `written`, does not write. None where there is none.

    tokens: those added to the vocabulary, spelling -> id. taken: those that are no choice.
    """
    named = named_for(field, tokens, taken)
    if named is not None:
        return named
    reserved = [
        spelling
        for spelling in tokens
        if spelling not in taken and spelling not in written and _RESERVED.search(spelling) and _role(spelling, tokens) is None
    ]
    return min(reserved, key=tokens.__getitem__, default=None)


def named_for(field: str, tokens: Mapping[str, int], taken: Container[str] = ()) -> str | None:
    """The token that is called after what stands in a field of a layout; None where there is none."""
    role = _FIELDS.get(field)
    named = [spelling for spelling in tokens if spelling not in taken and role is not None and _role(spelling, tokens) == role]
    return min(named, key=lambda spelling: (_word(spelling), tokens[spelling]), default=None)


def _role(spelling: str, tokens: Container[str]) -> str | None:
    """What a token called after images marks; None for any other."""
    lower = spelling.lower()
    if not any(word in lower for word in (*_SIGHT, "video")):
        return None
    if spelling.startswith("<") and f"</{spelling[1:]}" in tokens:
        return "start"
    return next((role for role, pattern in _ROLES if pattern.search(lower)), "place")


def _word(spelling: str) -> int:
    return next((rank for rank, word in enumerate(_SIGHT) if word in spelling.lower()), len(_SIGHT))
