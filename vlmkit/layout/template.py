"""Chat templates as data: what stands before and after each role's words."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from vlmkit.layout.laid_out import LayoutError, Turn
from vlmkit.layout.pieces import ImageTokens
from vlmkit.spec import Spec

if TYPE_CHECKING:
    from vlmkit.layout.image_layout import ImageLayout
    from vlmkit.layout.writer import Writer

MARK = re.compile(r"<[^<>\s]+>|\|[A-Z]+\|")
"""How special tokens are spelled: <...>, or |...| as Adept does."""


@dataclass(frozen=True, kw_only=True)
class Template(Spec):
    """Text around turns. Special tokens are written as the tokenizer spells them."""

    begin: str = ""
    """Before everything; put there by the tokenizer, for which the words behind it begin the string."""
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
    begin_written: bool = False
    """Whether the beginning is a part of the text, so that no word behind it begins the string; said where a tokenizer tells the two
    apart (Llama's, saved without `legacy`)."""

    preface: str = ""
    """Before every conversation, whether or not it has a system message."""

    later: ClassVar[frozenset[str]] = frozenset({"begin_written", "preface"})

    @property
    def specials(self) -> tuple[str, ...]:
        """Special tokens that the template spells: the tokenizer has to know each as one token."""
        text = " ".join((self.begin, *self.system, *self.user, *self.assistant))
        return tuple(dict.fromkeys(MARK.findall(text)))

    @property
    def stop(self) -> str:
        """What ends an answer."""
        return self.assistant[1]

    @property
    def end(self) -> str:
        """What stands behind a prompt that is given whole."""
        return ""

    def around(self, role: Literal["system", "user", "assistant"]) -> tuple[str, str]:
        if role == "system":
            return self.system
        return self.user if role == "user" else self.assistant

    def write(
        self,
        writer: Writer,
        layout: ImageLayout,
        turns: Sequence[Turn],
        images: Sequence[ImageTokens],
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
    ) -> None:
        """Write the conversation down, piece by piece. Raises LayoutError where it does not refer to every image once."""
        begins_behind = layout.begins_behind(turns)
        if begins_behind is None:
            self._begin(writer)
        if self.default_system is not None and (not turns or turns[0].role != "system"):
            turns = (Turn("system", (self.default_system,)), *turns)
        used = [part for turn in turns for part in turn.content if isinstance(part, int)]
        if sorted(used) != list(range(len(images))):
            raise LayoutError(f"the conversation refers to images {used}, but {len(images)} image(s) were given")
        if opening := layout.opening(turns):
            for number in opening:
                before_image, after_image = layout.around_image(True, False)
                before_image += layout.before_image(number)
                writer.image(number, images[number], layout.pieces(images[number]), before_image, after_image)
            turns = [turn._replace(content=tuple(part for part in turn.content if part not in opening)) for turn in turns]
        open_turn = len(turns) - 1 if continue_final_message else -1
        for turn, (role, content, _) in enumerate(turns):
            before, after = self.around(role)
            writer.trusted(before)
            if role == "assistant":
                if turn != open_turn:
                    writer.begin_answer()
                if self.before_answer:
                    writer.plain(self.before_answer)
            if self.before_text and content and isinstance(content[0], str):
                writer.trusted(self.before_text)
            last = len(content) - 1
            for number, part in enumerate(content):
                if isinstance(part, str):
                    writer.plain(part)
                else:
                    before_image, after_image = layout.around_image(number == 0, number == last)
                    before_image += layout.before_image(part)
                    writer.image(part, images[part], layout.pieces(images[part]), before_image, after_image)
                    if part == begins_behind:
                        self._begin(writer)
            if turn != open_turn:
                writer.end_of_turn(after)
        if add_generation_prompt:
            writer.trusted(self.assistant[0])

    def _begin(self, writer: Writer) -> None:
        if self.begin_written:
            writer.trusted(self.begin)
        elif self.begin:
            writer.begin(self.begin)
        if self.preface:
            writer.trusted(self.preface)


CHATML = Template(
    system=("<|im_start|>system\n", "<|im_end|>\n"),
    user=("<|im_start|>user\n", "<|im_end|>\n"),
    assistant=("<|im_start|>assistant\n", "<|im_end|>\n"),
)
"""ChatML, the format of OLMo 2 and 3, Qwen and many others."""
