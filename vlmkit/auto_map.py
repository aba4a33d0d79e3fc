"""A directory that transformers' Auto classes load where nobody imported vlmkit: `from_pretrained(directory, trust_remote_code=True)`.

transformers takes code from a directory whose config has an `auto_map`, after it was told to trust it. The code that is written here
imports vlmkit's classes and does nothing else, so what runs is the vlmkit that is installed. `vlmkit.load` never runs code of a directory.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

MODULE = "modeling_vlmkit"
CODE = '''"""For transformers' Auto classes with trust_remote_code=True. The classes are those of the vlmkit that is installed."""

from vlmkit.config import VLMConfig
from vlmkit.model import VLM
from vlmkit.processor import VLMProcessor

__all__ = ["VLM", "VLMConfig", "VLMProcessor"]
'''
AUTO_MAP = {
    "AutoConfig": f"{MODULE}.VLMConfig",
    "AutoModel": f"{MODULE}.VLM",
    # TRL and PEFT load what they do not know by this one, as transformers has it for several models with images.
    "AutoModelForCausalLM": f"{MODULE}.VLM",
    "AutoModelForImageTextToText": f"{MODULE}.VLM",
    "AutoModelForMultimodalLM": f"{MODULE}.VLM",
    "AutoProcessor": f"{MODULE}.VLMProcessor",
}
"""transformers' Auto class -> the name in the file that is written."""


def write_code(directory: str | os.PathLike[str]) -> None:
    """Write the file that `AUTO_MAP` names."""
    Path(directory, f"{MODULE}.py").write_text(CODE, encoding="utf-8")


class Referred:
    """A class that directories refer to by `AUTO_MAP`.

    transformers would copy the source file of a class that came by an `auto_map` into every directory that is saved from then on: the file
    of an installed package, which imports the rest of it.
    """

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = None) -> None:
        """Nothing: `save_pretrained` writes what an Auto class needs."""
