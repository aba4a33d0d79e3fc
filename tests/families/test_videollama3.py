"""Conversations of several turns, and what VideoLLaMA 3's class cannot express or its processor contradicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from families.system import chat, user
from families.tiny import picture
from families.videollama3 import reference

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.connectors.bilinear_mlp import BilinearMlp
from vlmkit.encoders.siglip import Siglip
from vlmkit.layout.run import Run
from vlmkit.layout.template import CHATML
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import SpecError

TINY = vlmkit.architecture("videollama3-tiny")


def said(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "content": [{"type": "text", "text": text}]}


def test_several_turns_are_written_as_the_published_template_writes_them() -> None:
    published = reference().processor
    processor = vlmkit.build_processor(TINY, tokenizer=published.tokenizer)
    row = [said("system", "Be brief."), user("What?", picture(40, 52)), said("assistant", "A line."), user("And?", picture(50, 90))]
    theirs = chat(published, row)
    ours = processor([row], add_generation_prompt=True)
    assert ours["input_ids"].tolist() == theirs["input_ids"].tolist()
    answered = processor([[*row, said("assistant", "Another.")]])
    size = ours["input_ids"].shape[1]
    assert answered["input_ids"][:, :size].tolist() == ours["input_ids"].tolist()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"policy": Squash(size=56)}, "has 'smart_resize' of factor 14 .*, but the policy is .*Squash"),
        ({"policy": TINY.policy.replace(factor=28)}, "has 'smart_resize' of factor 14 .*, but the policy is .*factor=28"),
        ({"encoder": TINY.encoder.replace(layer=-2)}, "has the last block of 'siglip_rotary', but the encoder is .*layer=-2"),
        ({"encoder": Siglip(width=32, layers=3, heads=4, mlp=64, image_size=56, positions="bicubic")}, "but the encoder is 'siglip'"),
        ({"connector": BilinearMlp(ratio_clips=2, depth=3)}, "has a 'bilinear_mlp' of two linear layers and exact GELU, .*depth=3"),
        ({"connector": "mlp"}, "has a 'bilinear_mlp' of two linear layers and exact GELU, but the connector is 'mlp'"),
        ({"layout": TINY.layout.replace(stamp="{:.2f} s:")}, "writes 'Time 0.0s:' before frames and commas between them, .*{:.2f} s:"),
        ({"layout": TINY.layout.replace(drop_unchanged=0.5)}, "leaves out what changed by 0.1 or less, not by 0.5"),
        ({"layout": TINY.layout.replace(video_placeholder=None)}, "films with a placeholder of their own, but the layout is"),
        ({"layout": TINY.layout.replace(placeholder="<|image|>")}, "has the placeholders '<|image_pad|>' and '<|video_pad|>' with this"),
        ({"layout": Run(template=CHATML, placeholder="<|image_pad|>")}, "has 'timestamps', and films .*, but the layout is .*Run"),
    ],
)
def test_an_architecture_that_the_class_cannot_express_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    arch = TINY.replace(**changes)
    tokenizer = reference().processor.tokenizer
    with pytest.raises(SpecError, match=f"(?s)VideoLlama3.* {reason}"):
        export(vlmkit.build(arch), vlmkit.build_processor(arch, tokenizer=tokenizer), tmp_path)
    assert not list(tmp_path.iterdir())


def test_without_token_compression_everything_is_placed(tmp_path: Path) -> None:
    model, processor = vlmkit.build(TINY), vlmkit.build_processor(TINY, tokenizer=reference().processor.tokenizer)
    whole = vlmkit.build(TINY.replace(layout=TINY.layout.replace(drop_unchanged=None)))
    for built, dropped in ((model, 0.1), (whole, None)):
        export(built, vlmkit.build_processor(built.config.spec, tokenizer=processor.tokenizer), tmp_path)
        found, _ = vlmkit.load(tmp_path)
        assert found.config.spec.layout == TINY.layout.replace(drop_unchanged=dropped)
        assert found.config.spec.connector == TINY.connector


def test_a_processor_of_another_patch_size_is_refused(tmp_path: Path) -> None:
    published = reference()
    published.model.save_pretrained(tmp_path)
    published.processor.video_processor.patch_size = 16
    published.processor.save_pretrained(tmp_path)
    with pytest.raises(SpecError, match=r"patch_size=16, .* VideoLlama3VideoProcessor: the model expects patches of 14 pixels and 1 frame"):
        vlmkit.load(tmp_path)
