"""Turns as Vicuna was trained on them: a space behind the role, which no question ends with."""

from __future__ import annotations

from families.llava import SYSTEMS
from families.system import user

import vlmkit


def test_an_answered_turn_and_an_open_one() -> None:
    processor = vlmkit.build_processor("llava-1.5-tiny", tokenizer=SYSTEMS[0].reference().processor.tokenizer)
    asked = [user("Who are you?")]
    answered = [*asked, {"role": "assistant", "content": "A model."}]
    texts = [processor.decode(batch["input_ids"][0]) for batch in (processor([asked], add_generation_prompt=True), processor([answered]))]
    assert texts == ["<s>USER: Who are you? ASSISTANT:", "<s>USER: Who are you? ASSISTANT: A model.</s>"]
