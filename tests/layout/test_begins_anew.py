"""Prompts that are cut at their images, each stretch encoded as a text of its own, as LLaVA's `tokenizer_image_token` does."""

from __future__ import annotations

import json

import pytest
from families.llava_upstream import tokenizer
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from vlmkit.features import Grid
from vlmkit.layout.laid_out import Turn
from vlmkit.layout.pieces import ImageTokens
from vlmkit.layout.run import Run
from vlmkit.layout.template import Template
from vlmkit.preprocess.geometry import Size
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.tokenizer import PlainTokenizer

LLAMA = PreTrainedTokenizerFast(
    tokenizer_object=Tokenizer.from_str(json.dumps(tokenizer(()))), bos_token="<s>", eos_token="</s>", unk_token="<unk>"
)
"""Llama's, saved without `legacy`: only the first word of a string is set off."""
PLAIN = PlainTokenizer(LLAMA)
IMAGE = ImageTokens(Squash(size=28).plan(Size(28, 28)), (Grid(1, 1, 2),))
TURNS = Template(begin="<s>", user=("USER: ", " "), assistant=("ASSISTANT:", "</s>"), before_answer=" ")
WORDS = st.text("ab \n", max_size=6)


@pytest.mark.parametrize("begins_anew", [True, False])
@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3))
def test_text_behind_an_image_is_a_text_of_its_own_or_goes_on(begins_anew: bool, parts: list[tuple[str, str]]) -> None:
    layout = Run(template=TURNS, placeholder="<unk>", after_image="\n", begins_anew=begins_anew)
    content = tuple(item for number, (before, behind) in enumerate(parts) for item in (before, number, behind))
    turns, images = (Turn("user", content), Turn("assistant", ("b",))), [IMAGE] * len(parts)
    stretches = ["USER: " + parts[0][0]]
    for number, (_, behind) in enumerate(parts):
        stretches.append("\n" + behind + (parts[number + 1][0] if number + 1 < len(parts) else " ASSISTANT: b"))
    expected = [1]
    for number, stretch in enumerate(stretches):
        expected += [0, 0] if number else []
        expected += PLAIN.encode(stretch, first=begins_anew or number == 0)
    expected.append(2)
    assert list(layout.lay_out(turns, images, PLAIN).ids) == expected
    text = layout.spell(turns, [False] * len(parts), PLAIN.specials)
    assert list(layout.lay_out_text(text, images, PLAIN).ids) == expected


def test_this_tokenizer_tells_the_two_apart() -> None:
    assert PLAIN.sets_off_first
    assert PLAIN.encode("\na") != PLAIN.encode("\na", first=False)
