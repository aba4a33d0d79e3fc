"""Names of weights in what earlier versions saved, and what they are called today."""

from __future__ import annotations

import re

RENAMED = {r"^learned\.": "fusion.learned."}
"""Patterns of old names, as `re.sub` takes them. Learned embeddings of a layout were the model's own before they were the fusion's."""


def todays(name: str) -> str:
    """'fusion.learned.newline' for 'learned.newline'; unchanged where it is today's."""
    for old, new in RENAMED.items():
        name = re.sub(old, new, name)
    return name
