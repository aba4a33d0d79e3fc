"""Placeholders whose tokenizer drops the blanks beside them, as Phi 3's do: the ids are those of the tokenizer for the whole string."""

from __future__ import annotations

import pytest
from tokenizers import AddedToken

from tests.test_tokenizer import bpe
from vlmkit.features import Grid
from vlmkit.layout import layouts
from vlmkit.layout.base import TokenLayout
from vlmkit.layout.jinja_template import JinjaTemplate
from vlmkit.layout.laid_out import Turn
from vlmkit.layout.pieces import ImageTokens
from vlmkit.layout.template import Template
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.tokenizer import PlainTokenizer

SOURCE = (
    "{% for m in messages %}<|im_start|>{% for c in m.content %}{{ '<img>\n' if c.type == 'image' else c.text }}{% endfor %}<|im_end|>"
    "{% endfor %}"
)
VALUE = Template(user=("<|im_start|>", "<|im_end|>"), assistant=("<|im_start|>", "<|im_end|>"))
IMAGE = ImageTokens(Squash(size=28).plan(Size(28, 28)), (Grid(1, 1, 3),))


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("behind", [False, True])
@pytest.mark.parametrize("kind", ["run", "bracketed"])
def test_blanks_beside_an_image_are_the_tokenizers(kind: str, before: bool, behind: bool) -> None:
    tokenizer = bpe()
    tokenizer.add_tokens([AddedToken(text, special=True, lstrip=before, rstrip=behind) for text in ("<img>", "<b>", "<e>")])
    brackets = {"start": "<b>", "end": "<e>"} if kind == "bracketed" else {}
    turns = [Turn("user", ("the cat  ", 0, "  sat \n", 1)), Turn("assistant", (" on ", 2, " the mat"))]
    shown = "{}<img><img><img>{}".format(*brackets.values()) if brackets else "<img><img><img>"
    whole = f"<|im_start|>the cat  {shown}\n  sat \n{shown}\n<|im_end|><|im_start|> on {shown}\n the mat<|im_end|>"
    written = "<b><img><e>\n" if brackets else "<img>\n"
    jinja = JinjaTemplate(source=SOURCE.replace("<img>\n", written))
    for template, after in ((VALUE, "\n"), (jinja, "")):
        layout: TokenLayout = layouts[kind](template=template, placeholder="<img>", after_image=after, **brackets)
        plain = PlainTokenizer(tokenizer, layout.required_specials())
        assert list(layout.lay_out(turns, [IMAGE] * 3, plain).ids) == tokenizer(whole, add_special_tokens=False)["input_ids"]
