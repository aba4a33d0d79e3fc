"""A checkpoint's own chat template, which is a program in Jinja, run by transformers' sandbox.

What it makes of a conversation is cut at marks (`vlmkit.layout.marks`), so that special tokens are only those that the template wrote.
An answer begins where the prompt for it ends, and ends with the first special token behind its words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from vlmkit.layout.laid_out import LayoutError, Turn
from vlmkit.layout.marks import Marks, Messages, Shown, render_marked
from vlmkit.layout.pieces import ImageTokens
from vlmkit.layout.placing import Placing
from vlmkit.spec import Settings, Spec, SpecError
from vlmkit.time_limit import within

if TYPE_CHECKING:
    from vlmkit.layout.image_layout import ImageLayout
    from vlmkit.layout.writer import Writer

_STATEMENT = re.compile(r"\{[{%].*?[}%]\}", re.DOTALL)
_STRING = re.compile(r"'((?:[^'\\]|\\.)*)'|\"((?:[^\"\\]|\\.)*)\"", re.DOTALL)

NOTHING = Settings()
LONGEST = 3.0
"""Seconds for one conversation; a millisecond is usual."""
Role = Literal["system", "user", "assistant"]


class TemplateTimeoutError(SpecError):
    """A template whose loops do not end; no other conversation is tried."""


class TemplateSizeError(SpecError):
    """A template whose operations make too much; no other conversation is tried."""


@dataclass(frozen=True, kw_only=True)
class JinjaTemplate(Spec):
    """Jinja in place of a `Template`, for what no table of texts around turns can say."""

    source: str
    variables: Settings = NOTHING
    """What the source reads beside the messages: bos_token and the like."""
    begin: str = ""
    """Special tokens that the tokenizer puts before a text that does not begin with its own first token."""
    end: str = ""
    """Text that the processor puts behind everything (PaliGemma's line break)."""
    stop: str = ""
    """What ends an answer."""
    delimiters: tuple[str, ...] = ()
    """Added tokens between turns that the tokenizer does not call special, and that no text may become all the same."""
    strings: tuple[Role, ...] = ()
    """Whose messages the template reads only where their content is a string."""
    items: tuple[Role, ...] = ()
    """Whose messages it reads only where their content is a list of items."""

    later: ClassVar[frozenset[str]] = frozenset({"variables", "begin", "end", "stop", "delimiters", "strings", "items"})

    @property
    def specials(self) -> tuple[str, ...]:
        """Special tokens that the tokenizer has to know."""
        return self.delimiters

    @property
    def literals(self) -> tuple[str, ...]:
        """Strings of the source's statements, which it may look for in texts."""
        found = [one or other for text in _STATEMENT.findall(self.source) for one, other in _STRING.findall(text)]
        return tuple(dict.fromkeys(word.encode("ascii", "backslashreplace").decode("unicode-escape") for word in found if word))

    def render(self, messages: Messages, *, add_generation_prompt: bool = False, continue_final_message: bool = False) -> str:
        """What the template makes of messages. Raises LayoutError, with its own words, where it refuses them."""
        from vlmkit.layout.bounded_jinja import OversizeError, render

        try:
            with within(LONGEST, "its program"):
                return render(
                    self.source,
                    messages,
                    add_generation_prompt=add_generation_prompt,
                    continue_final_message=continue_final_message,
                    **self.variables,
                )
        except TimeoutError as error:
            raise TemplateTimeoutError(f"the chat template is refused: {error}") from None
        except OversizeError as error:
            raise TemplateSizeError(f"the chat template is refused: {error}") from None
        except Exception as error:  # whatever a program from elsewhere raises
            raise LayoutError(
                f"the chat template refuses this conversation: {str(error).splitlines()[0] if str(error) else error!r}"
            ) from None

    def write(
        self,
        writer: Writer,
        layout: ImageLayout,
        turns: Sequence[Turn],
        images: Sequence[ImageTokens],
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
    ) -> None:
        """Write down what the template makes of the conversation. Raises LayoutError where it refuses it, where marks do not show whose
        words are whose, and where it does not write every image once."""
        placing = Placing(writer, layout, images)
        kinds = ["video" if placing.is_film(image) else "image" for image in images]
        texts = [placing.written[kind == "video"] + layout.after_image for kind in kinds]
        readable = [self.readable(turn) for turn in turns]
        visible = [word for word in self.literals if not any(special in word for special in writer.specials)]

        def render(messages: Messages) -> str:
            return self.render(messages, add_generation_prompt=add_generation_prompt, continue_final_message=continue_final_message)

        marks, messages, rendered = render_marked(render, readable, Shown(kinds, texts), visible)
        if placing.begins_behind is not None or not (self.begin and rendered.startswith(self.variables.get("bos_token") or self.begin)):
            placing.begin(self.begin)
        done = 0
        for answer in self._answers(messages[: len(messages) - continue_final_message], rendered, marks, placing):
            marks.place(rendered[done : answer.start], placing)
            writer.begin_answer()
            marks.place(rendered[answer.start : answer.words_end], placing)
            writer.end_of_turn(rendered[answer.words_end : answer.end])
            done = answer.end
        marks.place(rendered[done:] + self.end, placing)
        placing.finish()

    def readable(self, turn: Turn) -> Turn:
        """The turn in the form of content that the template reads."""
        return turn._replace(as_string=turn.role in self.strings or (turn.as_string and turn.role not in self.items))

    def _answers(self, messages: Messages, rendered: str, marks: Marks, placing: Placing) -> Iterator[Answer]:
        """Where answers stand in the rendered conversation. An answer whose words the template leaves out is none."""
        for number, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            prompt, turn = (self._prefix(messages[:count], rendered, count == number) for count in (number, number + 1))
            words = marks.places(rendered, number)
            if prompt is None and not words:
                continue
            start = words[0][0] if prompt is None else prompt
            images = [match.span() for match in placing.cut.finditer(rendered, start, start if turn is None else turn)]
            words_end = max([start, *(last for _, last in (*words, *images))])
            following = [match.start() for match in (marks.find(rendered, words_end), placing.cut.search(rendered, words_end)) if match]
            yield Answer(start, words_end, min([len(rendered) if turn is None else turn, *following]))

    def _prefix(self, messages: Messages, rendered: str, asks: bool) -> int | None:
        """Length of what the template makes of these messages, where that begins the rendered conversation; of a question with what the
        processor puts behind it."""
        try:
            prefix = self.render(messages, add_generation_prompt=asks)
        except LayoutError:
            return None
        if not rendered.startswith(prefix):
            return None
        return len(prefix) + len(self.end) * (asks and rendered.startswith(self.end, len(prefix)))


def own_template(source: str, tokenizer: Any) -> JinjaTemplate:
    """A chat template with what its tokenizer lets it read."""
    named = {name: str(token) for name, token in tokenizer.special_tokens_map.items() if name in source}
    return JinjaTemplate(source=source, variables=Settings(named))


class Answer(NamedTuple):
    """Places in a rendered conversation: where an answer begins, where its words end, and where its turn does."""

    start: int
    words_end: int
    end: int
