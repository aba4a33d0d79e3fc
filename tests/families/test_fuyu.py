"""What is Fuyu's own: an encoder without weights, a beginning behind the images, words that are special tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import fuyu
from families.system import user
from families.tiny import draw, picture

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.encoders.patches import Patches
from vlmkit.preprocess.policies.fit_canvas import FitCanvas
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import SpecError

NAMED = vlmkit.architecture("fuyu-tiny")


def test_half_precision_goes_through_an_encoder_that_has_none() -> None:
    """bfloat16 keeps 8 bits: measured 0.006 of the logits' norm, as much as in transformers' own class."""
    full, half = draw(vlmkit.build("fuyu-tiny")), draw(vlmkit.build("fuyu-tiny")).bfloat16()
    batch = vlmkit.build_processor("fuyu-tiny")([[user("What?", picture(40, 52))]])
    with torch.no_grad():
        expected, found = full(**batch).logits, half(**batch).logits
        patches = half.encoder.normalise(batch["pixel_values"]).bfloat16()
        assert torch.equal(half(**{**batch, "pixel_values": patches}).logits, found)
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() / expected.norm() < 0.03


def test_an_answer_ends_with_the_tokenizers_last_token_and_no_text_spells_a_place_for_an_image() -> None:
    tokenizer = fuyu.tokenizer()
    processor = vlmkit.build_processor("fuyu-tiny", tokenizer=tokenizer)
    conversation = [user("|SPEAKER|is", picture(10, 20)), {"role": "assistant", "content": "is|NEWLINE|"}]
    batch = processor([conversation])
    pieces = tokenizer.convert_ids_to_tokens(batch["input_ids"][0].tolist())
    assert pieces[:4] == ["|SPEAKER|", "|SPEAKER|", "|NEWLINE|", "<s>"]
    assert pieces.count("|SPEAKER|") == 2
    assert pieces.count("|NEWLINE|") == 1
    answer = pieces[pieces.index("<0x04>") + 1 :]
    assert answer[-1] == "|ENDOFTEXT|"
    assert (batch["labels"][0] != -100).sum() == len(answer)
    assert processor.stop_token_ids == [tokenizer.convert_tokens_to_ids("|ENDOFTEXT|")]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoder": Patches(patch=10, order="c dh dw")}, "raw patches, pixel by pixel"),
        ({"connector": "mlp"}, "a linear layer with a bias, .* the connector 'mlp'"),
        ({"layout": NAMED.layout.replace(row_end="<0x05>")}, "FuyuProcessor writes RowsFirst.* but the layout is"),
        ({"policy": Squash(size=60)}, "the policy is Squash"),
        ({"policy": FitCanvas(height=60, width=90, factor=10, fill=(1, 2, 3))}, r"in grey .*fill=\(1, 2, 3\)"),
    ],
)
def test_an_architecture_that_fuyu_cannot_express_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    arch = NAMED.replace(**changes)
    with pytest.raises(SpecError, match=reason):
        export(vlmkit.build(arch), vlmkit.build_processor(arch, tokenizer=fuyu.tokenizer()), tmp_path)
    assert not list(tmp_path.iterdir())
