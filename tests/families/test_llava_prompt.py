"""Turns as Vicuna was trained on them: a space behind the role, which no question ends with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers
from families.llava import SYSTEMS
from families.system import user
from families.tiny import picture

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.layout.jinja_template import JinjaTemplate


def test_an_answered_turn_and_an_open_one() -> None:
    processor = vlmkit.build_processor("llava-1.5-tiny", tokenizer=SYSTEMS[0].reference().processor.tokenizer)
    asked = [user("Who are you?")]
    answered = [*asked, {"role": "assistant", "content": "A model."}]
    texts = [processor.decode(batch["input_ids"][0]) for batch in (processor([asked], add_generation_prompt=True), processor([answered]))]
    assert texts == ["<s>USER: Who are you? ASSISTANT:", "<s>USER: Who are you? ASSISTANT: A model.</s>"]


def test_a_tokenizers_template_of_texts_alone_is_the_directorys_where_the_processor_has_none(tmp_path: Path) -> None:
    """transformers' processor refuses to write conversations then; an export writes them with the images in the words."""
    published = SYSTEMS[0].reference()
    published.processor.tokenizer.chat_template = (
        "{% for m in messages %}<s>{{ m.role }}> {{ m.content | trim }}</s>{% endfor %}"
        "{% if add_generation_prompt %}<s>assistant>{% endif %}"
    )
    model, processor = published.taken_over(tmp_path / "published")
    assert isinstance(processor.spec.layout.template, JinjaTemplate)
    row: list[dict[str, Any]] = [
        user(" What? ", picture(40, 52)),
        {"role": "assistant", "content": [{"type": "text", "text": " A cat."}]},
        user(" Why? "),
    ]
    ids = processor(row)["input_ids"]
    asked = "<s>user> <image><image><image><image>\n What?</s><s>assistant> A cat.</s><s>user> Why?</s><s>assistant>"
    assert processor.decode(ids[0]) == asked
    export(model, processor, tmp_path / "exported")
    theirs = transformers.AutoProcessor.from_pretrained(tmp_path / "exported")
    how = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    assert torch.equal(theirs.apply_chat_template(row, **how)["input_ids"], ids)
    assert torch.equal(vlmkit.load(tmp_path / "exported")[1](row)["input_ids"], ids)
