"""Words beside images, and what Idefics2's class cannot express."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from families.idefics2 import reference
from families.system import chat
from families.tiny import picture

import vlmkit
from vlmkit.checkpoints import export
from vlmkit.connectors.perceiver import Perceiver
from vlmkit.preprocess.policies.edge_bounds import EdgeBounds
from vlmkit.preprocess.policies.squash import Squash
from vlmkit.spec import SpecError
from vlmkit.tokenizer import bytes_tokenizer

IDEFICS2 = vlmkit.architecture("idefics2-tiny")
TINY = IDEFICS2.connector


@pytest.mark.parametrize("quarters", [False, True])
@pytest.mark.parametrize(
    "words",
    [("", ""), ("a", "b"), (" a", "\n"), ("<b>", "<"), ("\u00a0a", "\u732b"), (".", "Which is it?")],
    ids=repr,
)
def test_words_beside_images_are_written_as_the_published_processor_writes_them(quarters: bool, words: tuple[str, str]) -> None:
    published = reference(quarters).processor
    processor = vlmkit.build_processor("idefics2-split-tiny" if quarters else "idefics2-tiny", tokenizer=published.tokenizer)
    shown = [{"type": "image", "image": picture(40 + size, 52)} for size in (0, 1, 2)]
    before, after = ({"type": "text", "text": text} for text in words)
    row: list[dict[str, Any]] = [
        {"role": "user", "content": [shown[0], shown[1], before, shown[2], after]},
        {"role": "assistant", "content": [{"type": "text", "text": "A line."}]},
        {"role": "user", "content": [after, shown[0]]},
    ]
    assert processor([row], add_generation_prompt=True)["input_ids"].tolist() == chat(published, row)["input_ids"].tolist()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"policy": Squash(size=56)}, "sees 'edge_bounds', but the policy is 'squash'"),
        ({"policy": EdgeBounds(shortest=28, longest=84, factor=28)}, "can express .* but not .*factor=28"),
        ({"encoder": IDEFICS2.encoder.replace(final_norm=False)}, "has siglip with .*, but the encoder is .*final_norm=False"),
        ({"connector": "mlp"}, "has a 'perceiver', but the connector is 'mlp'"),
        ({"connector": TINY.replace(hidden=None)}, "takes hidden=64 and activation='silu' .* language model, but .*hidden=None"),
        ({"connector": TINY.replace(activation="gelu")}, "takes hidden=64 .* but the connector is .*activation='gelu'"),
        ({"layout": vlmkit.architecture("idefics3-tiny").layout}, "can express .* but not .*TileTags"),
    ],
)
def test_an_architecture_that_the_class_cannot_express_is_refused(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    arch = IDEFICS2.replace(**changes)
    tokenizer = bytes_tokenizer(arch.layout.required_specials())
    with pytest.raises(SpecError, match=f"(?s)Idefics2.* {reason}"):
        export(vlmkit.build(arch), vlmkit.build_processor(arch, tokenizer=tokenizer), tmp_path)
    assert not list(tmp_path.iterdir())


def test_where_no_width_is_stated_that_of_the_language_model_may_be_meant(tmp_path: Path) -> None:
    arch = IDEFICS2.replace(
        connector=Perceiver(**{name: getattr(TINY, name) for name in ("latents", "depth", "heads", "kv_heads", "head_dim")}),
        language_model=IDEFICS2.language_model.replace(config=IDEFICS2.language_model.config | {"intermediate_size": 128}),
    )
    export(vlmkit.build(arch), vlmkit.build_processor(arch), tmp_path)
    model, _ = vlmkit.load(tmp_path)
    assert model.config.spec.connector == arch.connector.replace(hidden=128)
