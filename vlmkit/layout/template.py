"""Chat templates as data: what stands before and after each role's words."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from vlmkit.spec import Spec

MARK = re.compile(r"<[^<>\s]+>|\|[A-Z]+\|")
"""How special tokens are spelled: <...>, or |...| as Adept does."""


@dataclass(frozen=True, kw_only=True)
class Template(Spec):
    """Text around turns. Special tokens are written as the tokenizer spells them."""

    begin: str = ""
    """Before everything."""
    system: tuple[str, str] = ("", "")
    user: tuple[str, str]
    assistant: tuple[str, str]
    """Before and after the assistant's words; generation continues after the first part and stops at the second."""
    before_text: str = ""
    """Before a turn's content where that begins with text; an image follows the role at once (the Idefics family). In an
    answer it is the model's to write."""
    before_answer: str = ""
    """Before an answer's words, the model's to write as well: a space that no question ends with."""
    default_system: str | None = None
    """System message of a conversation that has none."""

    @property
    def specials(self) -> tuple[str, ...]:
        """Special tokens that the template spells: the tokenizer has to know each as one token."""
        text = " ".join((self.begin, *self.system, *self.user, *self.assistant))
        return tuple(dict.fromkeys(MARK.findall(text)))

    def around(self, role: Literal["system", "user", "assistant"]) -> tuple[str, str]:
        if role == "system":
            return self.system
        return self.user if role == "user" else self.assistant


CHATML = Template(
    system=("<|im_start|>system\n", "<|im_end|>\n"),
    user=("<|im_start|>user\n", "<|im_end|>\n"),
    assistant=("<|im_start|>assistant\n", "<|im_end|>\n"),
)
"""ChatML, the format of OLMo 2 and 3, Qwen and many others."""
