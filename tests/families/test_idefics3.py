"""Conversations of several turns, and what the classes of Idefics3 and SmolVLM cannot express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from families.idefics3 import idefics3, smolvlm
from families.system import chat, images_of, user
from families.tiny import picture

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.connectors.pixel_shuffle import PixelShuffle
from vlmkit.encoders.siglip import Siglip
from vlmkit.layout.template import CHATML
from vlmkit.preprocess.policies.longest_edge_tiles import LongestEdgeTiles
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import SpecError

IDEFICS3 = vlmkit.architecture("idefics3-tiny")


def said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


@pytest.mark.parametrize(("name", "reference"), [("idefics3-tiny", idefics3), ("smolvlm-tiny", smolvlm)])
def test_several_turns_are_written_as_the_published_template_writes_them(name: str, reference: Any) -> None:
    published = reference().processor
    processor = vlmkit.build_processor(name, tokenizer=published.tokenizer)
    text_first = {"role": "user", "content": user("And here?", picture(50, 90))["content"][::-1]}
    row = [said("system", "Be brief."), user("What?", picture(40, 52)), said("assistant", "A line."), text_first]
    theirs = chat(published, row)
    ours = processor([row], add_generation_prompt=True)
    assert len(images_of(row)) == 2
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
    answered = processor([[*row, said("assistant", "Another.")]])
    size = ours["input_ids"].shape[1]
    assert answered["input_ids"][:, :size].tolist() == ours["input_ids"].tolist()
    assert published.tokenizer.decode(answered["labels"][0, size:].clamp(min=0).tolist()).startswith(" Another.<end_of_utterance>")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"policy": Squash(size=56)}, "sees 'longest_edge_tiles', but the policy is 'squash'"),
        ({"policy": LongestEdgeTiles(size=56, view=28)}, "can express .* but not .*view=28"),
        ({"encoder": IDEFICS3.encoder.replace(layer=-2)}, "has siglip with .*, but the encoder is .*layer=-2"),
        ({"encoder": Siglip(width=32, layers=3, heads=4, mlp=64, image_size=56)}, "has siglip with .*, but the encoder is .*'fixed'"),
        ({"connector": PixelShuffle(ratio=2, bias=True)}, "without bias, but the connector is .*bias=True"),
        ({"connector": "mlp"}, "has a 'pixel_shuffle' without bias, but the connector is 'mlp'"),
        ({"layout": IDEFICS3.layout.replace(row_end="")}, "can express .* but not .*row_end=''"),
        ({"layout": vlmkit.layouts["run"](template=CHATML, placeholder="<image>")}, "can express .* but not .*Run"),
    ],
)
def test_an_architecture_that_the_class_cannot_express_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    arch = IDEFICS3.replace(**changes)
    tokenizer = idefics3().processor.tokenizer
    with pytest.raises(SpecError, match=f"(?s)Idefics3.* {reason}"):
        export(vlmkit.build(arch), vlmkit.build_processor(arch, tokenizer=tokenizer), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_tokenizer_without_the_end_of_an_utterance_is_refused(tmp_path: Path) -> None:
    arch = IDEFICS3.replace(layout=IDEFICS3.layout.replace(template=CHATML))
    with pytest.raises(SpecError, match="Idefics3Processor needs <end_of_utterance>, which the tokenizer does not have"):
        export(vlmkit.build(arch), vlmkit.build_processor(arch), tmp_path)
    assert not list(tmp_path.iterdir())
