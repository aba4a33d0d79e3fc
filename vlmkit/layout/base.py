"""From a conversation and the grids of its images to token ids, labels and the places of visual tokens.

Everything is a piece. A template's own text is trusted and may hold special tokens; text that came from a user or a
data set is plain and can never become one; a run of visual tokens is a piece too, so its place is known while ids are laid
out and is never searched for again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from vlmkit.layout import layouts
from vlmkit.layout.image_layout import ImageLayout
from vlmkit.layout.jinja_template import JinjaTemplate
from vlmkit.layout.laid_out import Layout, Turn
from vlmkit.layout.pieces import ImageTokens
from vlmkit.layout.placing import Placing
from vlmkit.layout.specials import Specials
from vlmkit.layout.spelled import spelled
from vlmkit.layout.template import Template
from vlmkit.layout.writer import Tokenizer, Writer
from vlmkit.spec import Spec


@dataclass(frozen=True, kw_only=True)
class TokenLayout(ImageLayout, Spec):
    """Base of layouts. A subclass says which pieces stand for one image; turns come from the template."""

    registry = layouts

    template: Template | JinjaTemplate
    """A value, or the checkpoint's own Jinja, which writes around images itself."""
    placeholder: str
    """The tokenizer's reserved token whose id fills the places of visual tokens."""
    after_image: str = ""
    """Template text after each image."""
    begins_anew: bool = False
    """Whether text right behind an image is encoded as one by itself, whose first word is set off as the first of a string is: LLaVA's own
    code and Yi-VL's cut a prompt at its images (`tokenizer_image_token`). It shows in tokenizers that tell the two apart (Llama's, saved
    without `legacy`)."""

    later: ClassVar[frozenset[str]] = frozenset({"begins_anew"})

    def required_specials(self) -> tuple[str, ...]:
        """Special tokens that the tokenizer must have."""
        return (self.placeholder, *self.template.specials)

    def lay_out(
        self,
        turns: Sequence[Turn],
        images: Sequence[ImageTokens],
        tokenizer: Tokenizer,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
    ) -> Layout:
        """Ids, labels and spans of a conversation; with `continue_final_message` it ends with the words of its last message, for
        generation to go on from there. Raises LayoutError for roles out of place or images that do not fit."""
        writer = Writer(tokenizer, self.placeholder, self.learned, partial=self.partial, begins_anew=self.begins_anew)
        self.template.write(writer, self, turns, images, add_generation_prompt, continue_final_message)
        return writer.layout()

    def lay_out_text(self, prompt: str, images: Sequence[ImageTokens], tokenizer: Tokenizer, *, bare: bool = False) -> Layout:
        """Ids and spans of a whole prompt that is trusted: special tokens in it are meant, and images stand where it writes them as
        published templates do. What begins and ends a text stands once, whether or not the prompt spells it; a `bare` text has what it
        spells and nothing more. Raises LayoutError where images and places are not equally many."""
        begin, end = self.template.begin, self.template.end
        writer = Writer(tokenizer, self.placeholder, self.learned, partial=self.partial, begins_anew=self.begins_anew)
        placing = Placing(writer, self, images)
        if placing.begins_behind is None and prompt.startswith(begin) and not getattr(self.template, "begin_written", False):
            placing.begin(begin)
            prompt = prompt.removeprefix(begin)
        elif bare or begin in prompt:
            placing.begin("")
            writer.begun = -1 if begin else 0  # its first word goes on with what stands before
        else:
            placing.begin(begin)
        placing.trusted(prompt if bare or (end and prompt.endswith(end)) else prompt + end)
        placing.finish()
        return writer.layout()

    def spell(self, turns: Sequence[Turn], films: Sequence[bool], specials: Specials, **how: bool) -> str:
        """The conversation as a string that `lay_out_text` lays out again; see vlmkit.layout.spelled."""
        return spelled(self.template, self, turns, films, specials, **how)
